"""The life of the process: bad options, probes, settling and drain on SIGTERM, a second signal, TLS, API keys."""
import collections
import ctypes
import http.client
import json
import os
import pathlib
import platform
import re
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import unittest

import grpc

import grpc_client
from grpc_client import pb
from server_process import BINARY, PROMPT, ROOT, ServerProcess, events_of, slow_model, wait_until


def long_request(stub, max_tokens):
    return stub.Generate(pb.GenerateRequest(
        text=PROMPT, sampling=pb.Sampling(max_tokens=max_tokens, ignore_eos=True, temperature=0)))


def slices(pid):
    """{(slice in ns, how much nicer than the process): threads}, as sched_getattr(2) tells them; slice 0: of a Linux without."""
    libc, number, found = ctypes.CDLL(None), {"x86_64": 315, "aarch64": 275}[platform.machine()], collections.Counter()
    own = os.getpriority(os.PRIO_PROCESS, pid)
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        attributes = ctypes.create_string_buffer(48)
        if libc.syscall(number, int(thread.name), attributes, 48, 0) == 0:
            _, _, _, nice, _, runtime = struct.unpack_from("IIQiIQ", attributes)
            found[runtime, nice - own] += 1
    return found


class LifecycleTest(unittest.TestCase):
    def start(self, *flags, slow=False):
        server = ServerProcess(*flags, **({"model": slow_model()} if slow else {}))
        self.addCleanup(server.stop)
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)
        return server, channel, stub

    def run_server(self, *flags, **environment):
        return subprocess.run([BINARY, *flags], capture_output=True, text=True, timeout=120,
                              env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment})

    def test_who_works_for_the_shortest_time_has_a_core_first(self):
        server, _, stub = self.start()
        list(long_request(stub, 3))
        found = slices(server.process.pid)
        if all(slice == 0 for slice, _ in found):
            self.skipTest("this Linux has no slices to ask for")
        self.assertEqual(found.pop((500_000, 0)), 2, "the engine and the other of its two cores")
        self.assertEqual(found.pop((10_000_000, 5)), 2 + 1, "short texts, and memory ahead of its use")
        self.assertEqual(found.pop((10_000_000, 9)), 2 + 2, "long texts, and what reads long bodies")
        self.assertEqual({slice for slice, nicer in found}, {100_000}, found)

    def test_bad_options_are_one_clear_line(self):
        demo = str(ROOT / "models" / "demo")
        cases = [
            ([], "--model: the checkpoint folder is needed"),
            (["/nope"], "--model: /nope: No such file or directory"),
            (["--model=/nope"], "--model: /nope: No such file or directory"),
            (["/dev/null"], "--model: /dev/null: Not a directory"),
            ([demo, "--device=cuda"], "CUDA"),  # not built in, or no GPU to see
            ([demo, "--device=tpu"], "tpu"),
            ([demo, "--weight_dtype=f64"], "--weight_dtype"),
            ([demo, "--state_dtype=f16"], "--state_dtype: 'f16' is not auto, f32, bf16 or int8"),
            ([demo, "--page_size=17"], "--page_size: must be 16, 32 or 64"),
            ([demo, "--threads=-1"], "--threads: must be in [0, 1024]"),
            ([demo, "--tensor_parallel_size=3"], "--tensor_parallel_size"),
            ([demo, "--max_num_seqs=-1"], "--max_num_seqs"),
            ([demo, "--http_port=70000"], "--http_port"),
            ([demo, "--htp_port=1"], "--htp_port: no such flag; the nearest is --http_port"),
            ([demo, "--state_cache_bytes=4GuB"], "--state_cache_bytes: '4GuB' is not a size"),
            ([demo, "--drain_seconds=soon"], "--drain_seconds: 'soon' is not a time"),
            ([demo, "--tls_cert=x"], "--tls_key"),
            ([demo, "--api_keys_file=/nope"], "/nope: No such file or directory"),
            ([demo, "--flagfile=/nope"], "--flagfile: /nope: No such file or directory"),
            ([demo, "--access_log=xml"], "--access_log"),
            ([demo, "--log_format=xml"], "--log_format"),
            ([demo, "--log_level=loud"], "--log_level"),
            ([demo, "--settle_seconds=-1"], "--settle_seconds"),
            ([demo, "extra"], "extra"),
            ([f"--model={demo}", "extra"], "extra"),
        ]
        for flags, expected in cases:
            with self.subTest(flags):
                done = self.run_server("--http_port=0", "--grpc_port=0", *flags)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stdout, "")
                self.assertIn(expected, done.stderr.splitlines()[-1])

    def test_values_that_the_model_refuses_are_refused_before_its_weights_are_read(self):
        """The folder has a config.json and a tokenizer, and weights that cannot be read."""
        demo = ROOT / "models" / "demo"
        with tempfile.TemporaryDirectory() as folder:
            for name in ("config.json", "tokenizer.json"):
                pathlib.Path(folder, name).symlink_to(demo / name)
            weights = (demo / "model.safetensors").read_bytes()
            header = 8 + int.from_bytes(weights[:8], "little")
            with open(pathlib.Path(folder, "model.safetensors"), "wb") as file:
                file.write(weights[:header])
                file.write(b"\xff" * (len(weights) - header))  # NaN
            self.assertIn("not a finite number", self.run_server(folder, "--http_port=0", "--grpc_port=0").stderr)
            for flag in ("--max_model_len=1000000", "--state_cache_bytes=1KiB", "--activation_dtype=bf16 --weight_dtype=f32",
                         "--state_cache_bytes=1MiB --max_model_len=4096"):
                done = self.run_server(folder, "--http_port=0", "--grpc_port=0", *flag.split())
                self.assertEqual(done.returncode, 1)
                self.assertIn(flag.split("=")[0][2:], done.stderr.splitlines()[-1])
                self.assertNotIn("not a finite number", done.stderr)

    def test_help_version_environment_and_a_model_without_its_flag(self):
        for flag in ("--help", "-h"):
            done = self.run_server(flag)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertLess(done.stdout.index("\nAddresses\n"), done.stdout.index("  --http_port=8000\n"))
            self.assertNotIn(str(ROOT), done.stdout)
        version = re.search(r"VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text().split("project(")[1])[1]
        done = self.run_server("--version")
        self.assertEqual((done.returncode, done.stdout), (0, f"sessa-server {version}\n"))
        done = self.run_server("x", SESSA_HTTP_PORT="tcp://10.0.0.1:80")
        self.assertIn("SESSA_HTTP_PORT: 'tcp://10.0.0.1:80'", done.stderr)
        server = ServerProcess(str(ROOT / "models" / "demo"), "--max_body_bytes=1MiB", "--drain_seconds=1m", model=None, env={
            **os.environ, "SESSA_MAX_MODEL_LEN": "1024", "SESSA_MAX_BODY_BYTES": "2MiB"})
        self.addCleanup(server.stop)
        limits = json.loads(server.request("GET", "/v1/limits")[2])
        self.assertEqual((limits["max_model_len"], limits["max_body_bytes"]), (1024, 1 << 20))
        self.assertEqual(json.loads(server.request("GET", "/v1/models")[2])["data"][0]["id"], "demo")

    def test_sigterm_finishes_what_runs(self):
        server, channel, stub = self.start("--drain_seconds=100")
        watch = grpc_client.health(channel, watch=True)
        self.assertEqual(next(watch), grpc_client.SERVING)
        self.assertEqual([server.request("GET", p)[0] for p in ("/livez", "/readyz", "/startupz")], [200] * 3)
        call = long_request(stub, 600)
        next(call)
        server.signal(signal.SIGTERM)
        self.assertEqual(next(watch), grpc_client.NOT_SERVING)
        replies = list(call)
        self.assertEqual(replies[-1].WhichOneof("event"), "finished")
        self.assertEqual(replies[-1].finished.usage.completion_tokens, 600)
        self.assertEqual(server.wait(), 0)

    def test_drain_has_a_bound(self):
        server, _, stub = self.start("--drain_seconds=0.01", slow=True)
        call = long_request(stub, 3900)
        next(call)
        server.signal(signal.SIGTERM)
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(server.wait(), 0)

    def test_second_signal_hastens(self):
        server, channel, stub = self.start("--drain_seconds=1000", slow=True)
        watch = grpc_client.health(channel, watch=True)
        self.assertEqual(next(watch), grpc_client.SERVING)
        calls = [long_request(stub, 1900) for _ in range(4)]  # all four have room in the state cache
        for call in calls:
            next(call)
        server.signal(signal.SIGINT)
        self.assertEqual(next(watch), grpc_client.NOT_SERVING)
        server.signal(signal.SIGINT)
        for call in calls:
            with self.assertRaises(grpc.RpcError) as caught:
                list(call)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(server.wait(), 0)

    def test_a_stream_that_is_drained_away_ends_with_done(self):
        server, _, _ = self.start("--drain_seconds=0.01", slow=True)
        result = {}

        def read():
            result["reply"] = server.request("POST", "/v1/completions", {
                "prompt": PROMPT, "max_tokens": 3900, "ignore_eos": True, "stream": True})

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: server.metrics()["sessa_generation_tokens_total"] >= 5)
        server.signal(signal.SIGTERM)
        reader.join()
        status, _, body = result["reply"]
        events = events_of(body)
        self.assertEqual(status, 200)
        self.assertEqual(events[-1], "[DONE]")
        self.assertIn("error", json.loads(events[-2]))
        self.assertEqual(server.wait(), 0)

    def whole_request_during_sigterm(self, drain_seconds, max_tokens, slow):
        server, _, _ = self.start(f"--drain_seconds={drain_seconds}", slow=slow)
        result = {}

        def read():
            result["reply"] = server.request("POST", "/v1/completions", {
                "prompt": PROMPT, "max_tokens": max_tokens, "ignore_eos": True})

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: server.metrics()["sessa_generation_tokens_total"] >= 5)
        server.signal(signal.SIGTERM)
        reader.join()
        self.assertEqual(server.wait(), 0)
        return result["reply"]

    def test_sigterm_finishes_whole_answers(self):
        status, headers, body = self.whole_request_during_sigterm(100, 600, slow=False)
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(body)["usage"]["completion_tokens"], 600)
        self.assertEqual(headers["Content-Length"], str(len(body.encode())))

    def test_a_whole_answer_that_is_drained_away_is_an_error(self):
        status, headers, body = self.whole_request_during_sigterm(0.01, 3900, slow=True)
        self.assertEqual(status, 503)
        self.assertEqual(json.loads(body)["error"]["code"], "draining")
        self.assertEqual(headers["Retry-After"], "1")

    def test_while_draining_requests_are_refused_and_probes_answer(self):
        server, channel, stub = self.start("--drain_seconds=1000", slow=True)
        call = long_request(stub, 3900)
        next(call)
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.request("GET", "/readyz")[0] == 503)
        self.assertEqual([server.request("GET", p)[0] for p in ("/livez", "/startupz", "/health")], [200, 200, 503])
        wait_until(lambda: grpc_client.health(channel) == grpc_client.NOT_SERVING)
        self.assertEqual(grpc_client.health(channel, "liveness"), grpc_client.SERVING)
        wait_until(lambda: stub.GetLoad(pb.GetLoadRequest()).draining)
        wait_until(lambda: server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 503)
        status, headers, body = server.request("POST", "/v1/completions", {"prompt": "x"})
        self.assertEqual((status, json.loads(body)["error"]["code"]), (503, "draining"))
        self.assertEqual(headers["Retry-After"], "1")
        with self.assertRaises(grpc.RpcError) as caught:
            list(long_request(stub, 1))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIsNotNone(grpc_client.detail(caught.exception, grpc_client.RetryInfo))
        call.cancel()
        self.assertEqual(server.wait(), 0)

    def test_settling_takes_requests(self):
        server, channel, stub = self.start("--settle_seconds=1000")
        watch = grpc_client.health(channel, watch=True)
        self.assertEqual(next(watch), grpc_client.SERVING)
        server.signal(signal.SIGTERM)
        self.assertEqual(next(watch), grpc_client.NOT_SERVING)
        self.assertEqual(server.request("GET", "/readyz")[0], 503)
        self.assertEqual(server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})[0], 200)
        self.assertEqual(list(long_request(stub, 3))[-1].WhichOneof("event"), "finished")
        server.signal(signal.SIGTERM)  # hastens
        self.assertEqual(server.wait(), 0)

    def test_silent_clients_do_not_hold_up_the_end(self):
        server, _, stub = self.start()
        host, port = server.http_address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as idle, socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                         b"Content-Length: 100\r\n\r\n{")
            stub.GetLoad(pb.GetLoadRequest())  # an open gRPC connection
            server.signal(signal.SIGTERM)
            self.assertEqual(server.wait(), 0)
            self.assertEqual((idle.recv(1), half.recv(1)), (b"", b""))

    def test_sigterm_while_loading(self):
        for _ in range(5):
            server = ServerProcess(wait=False)
            self.addCleanup(server.stop)
            wait_until(lambda: "opening" in server.stderr())
            server.signal(signal.SIGTERM)
            server.process.communicate(timeout=60)  # it may have come to its ready line
            self.assertEqual(server.process.returncode, 0)

    def test_every_line_of_a_json_log_is_json(self):
        """What a start, requests of each kind and an end write, by both protocols."""
        keys = tempfile.NamedTemporaryFile("w", suffix="keys")
        self.addCleanup(keys.close)
        keys.write("secret team\n")
        keys.flush()
        server, _, stub = self.start("--log_format=json", f"--api_keys_file={keys.name}", "--served_model_name=demo", slow=True)
        auth = {"Authorization": "Bearer secret", "X-Request-Id": "mine"}
        body = {"prompt": PROMPT, "max_tokens": 3, "ignore_eos": True}
        server.request("POST", "/v1/completions", body, auth)
        server.request("POST", "/v1/completions", {"prompt": PROMPT, "temperature": -1}, auth)
        server.request("POST", "/v1/completions", body)
        metadata = (("authorization", "Bearer secret"),)
        generate = lambda n: stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(
            max_tokens=n, ignore_eos=True, temperature=0)), metadata=metadata)
        list(generate(2))
        call = generate(3900)
        next(call)
        call.cancel()
        with self.assertRaises(grpc.RpcError):
            list(stub.Generate(pb.GenerateRequest(text=PROMPT)))
        entries = lambda: [json.loads(line) for line in server.stderr().splitlines()]
        accesses = lambda: [entry for entry in entries() if entry["message"] == "request"]
        wait_until(lambda: len(accesses()) == 6)
        # A line comes after its reply, so two lines may come in either order.
        by_status = {(line["protocol"], line["status"]): line for line in accesses()}
        self.assertEqual(set(by_status), {("rest", "200"), ("rest", "400"), ("rest", "401"), ("grpc", "OK"), ("grpc", "CANCELLED"),
                                          ("grpc", "UNAUTHENTICATED")})
        for (protocol, _), endpoint, tokens in (("rest", "200"), "/v1/completions", 3), (("grpc", "OK"), "Generate", 2):
            line = by_status[protocol, "200" if protocol == "rest" else "OK"]
            self.assertEqual((line["endpoint"], line["completion_tokens"], line["tenant"], line["model"], line["finish_reason"]),
                             (endpoint, tokens, "team", "demo", "length"))
            self.assertRegex(line["client"], r"^127\.0\.0\.1:\d+$")
            self.assertGreater(line["prompt_tokens"], 0)
            self.assertIn("cached_tokens", line)
            self.assertLessEqual(line["queue_seconds"], line["ttft_seconds"])
            self.assertLessEqual(line["ttft_seconds"], line["seconds"])
        self.assertEqual(by_status["rest", "200"]["request_id"], "mine")
        refused = by_status["rest", "400"]
        self.assertEqual((refused["error"], refused["tenant"]), ("invalid_value", "team"))
        self.assertIn("temperature", refused["reason"])
        self.assertNotIn("completion_tokens", refused)
        self.assertNotIn("tenant", by_status["rest", "401"])
        self.assertIn("API key", by_status["rest", "401"]["reason"])
        self.assertEqual(by_status["grpc", "UNAUTHENTICATED"]["reason"], by_status["rest", "401"]["reason"])
        self.assertEqual(by_status["grpc", "CANCELLED"]["error"], "cancelled")
        server.signal()
        self.assertEqual(server.process.wait(60), 0)
        self.assertEqual({entry["level"] for entry in entries()}, {"info", "warning"})  # the key is in plain text
        self.assertEqual([key for entry in entries() for key in ("time", "level", "message") if key not in entry], [])
        self.assertEqual(entries()[-1]["message"], "stopped")

    def test_the_log_for_people_sums_up_what_is_served(self):
        server, _, _ = self.start("--max_model_len=2048")
        log = server.stderr()
        for expected in ("info model: demo, 4 layers of width 192", "info formats: weights bf16, state bf16",
                         "context up to 2048 tokens", "info limits: 256 sequences",
                         f"info try: http://{server.http_address}/ ", f"http://{server.admin_address}/metrics",
                         f"gRPC on {server.grpc_address}"):
            self.assertIn(expected, log)
        quiet, _, _ = self.start("--log_level=warning")
        quiet.request("POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 1})
        self.assertEqual(quiet.stderr(), "")

    def test_a_terminal_sees_a_bar_while_weights_are_read(self):
        terminal, inner = os.openpty()
        server = ServerProcess(stderr=inner)
        self.addCleanup(server.stop)
        os.close(inner)
        self.addCleanup(os.close, terminal)
        seen = b""
        while b"info try:" not in seen:
            seen += os.read(terminal, 4096)
        self.assertRegex(seen.decode(), r"\x1b\[Kweights \[#* *\] +\d+ %  \S+ \w+ of 2\.5\d MiB[^\n]*\r")

    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = pathlib.Path(folder, "cert.pem"), pathlib.Path(folder, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
                            "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                           check=True, capture_output=True)
            server = ServerProcess(f"--tls_cert={cert}", f"--tls_key={key}")
            self.addCleanup(server.stop)
            host, port = server.http_address.rsplit(":", 1)
            context = ssl.create_default_context(cafile=str(cert))
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=120)
            for stream in (True, False, True):  # one connection
                connection.request("POST", "/v1/completions", json.dumps(
                    {"prompt": PROMPT, "max_tokens": 5, "stream": stream}), {"Content-Type": "application/json"})
                reply = connection.getresponse()
                body = reply.read().decode()
                self.assertEqual(reply.status, 200, body)
                self.assertEqual(body.endswith("data: [DONE]\n\n"), stream)
            connection.close()
            credentials = grpc.ssl_channel_credentials(cert.read_bytes())
            with grpc.secure_channel(server.grpc_address, credentials) as channel:
                self.assertEqual(grpc_client.health(channel), grpc_client.SERVING)
            for bad in ([f"--tls_cert={key}", f"--tls_key={key}"], [f"--tls_cert={cert}", f"--tls_key={cert}"]):
                done = subprocess.run([BINARY, f"--model={ROOT / 'models' / 'demo'}", "--http_port=0", "--grpc_port=0",
                                       *bad], capture_output=True, text=True, timeout=120)
                self.assertEqual(done.returncode, 1)
                self.assertIn(str(folder), done.stderr.splitlines()[-1])

    def test_api_keys(self):
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder, "keys")
            keys.write_text("secret team\n")
            server, _, stub = self.start(f"--api_keys_file={keys}")
            body = {"prompt": "x", "max_tokens": 1}
            self.assertEqual(server.request("POST", "/v1/completions", body)[0], 401)
            good = {"Authorization": "Bearer secret"}
            self.assertEqual(server.request("POST", "/v1/completions", body, good)[0], 200)
            with self.assertRaises(grpc.RpcError) as caught:
                list(long_request(stub, 1))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
            self.assertEqual(server.request("GET", "/readyz")[0], 200)


if __name__ == "__main__":
    unittest.main()
