"""The life of the process: bad options, probes, drain on SIGTERM, a second signal, API keys."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import unittest

import grpc

import grpc_client
from grpc_client import pb
from server_process import BINARY, PROMPT, ROOT, ServerProcess


def long_request(stub, max_tokens):
    return stub.Generate(pb.GenerateRequest(
        text=PROMPT, sampling=pb.Sampling(max_tokens=max_tokens, ignore_eos=True, temperature=0)))


class LifecycleTest(unittest.TestCase):
    def start(self, *flags):
        server = ServerProcess(*flags)
        self.addCleanup(server.stop)
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)
        return server, channel, stub

    def test_bad_options_are_one_clear_line(self):
        demo = f"--model={ROOT / 'models' / 'demo'}"
        cases = [
            ([], "--model"),
            (["--model=/nowhere"], "/nowhere"),
            ([demo, "--device=cuda"], "CUDA"),  # not built in, or no GPU to see
            ([demo, "--device=tpu"], "tpu"),
            ([demo, "--weight_dtype=f64"], "--weight_dtype"),
            ([demo, "--page_size=17"], "page_size"),
            ([demo, "--http_port=70000"], "--http_port"),
            ([demo, "--tls_cert=x"], "--tls_key"),
            ([demo, "--api_keys_file=/nowhere"], "/nowhere"),
            ([demo, "extra"], "extra"),
        ]
        for flags, expected in cases:
            with self.subTest(flags):
                done = subprocess.run([BINARY, "--http_port=0", "--grpc_port=0", *flags], capture_output=True,
                                      text=True, timeout=120, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stdout, "")
                self.assertIn(expected, done.stderr.splitlines()[-1])

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
        server, _, stub = self.start("--drain_seconds=0.2")
        call = long_request(stub, 3900)
        next(call)
        server.signal(signal.SIGTERM)
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(server.wait(), 0)

    def test_second_signal_hastens(self):
        server, channel, stub = self.start("--drain_seconds=1000")
        watch = grpc_client.health(channel, watch=True)
        self.assertEqual(next(watch), grpc_client.SERVING)
        calls = [long_request(stub, 3900) for _ in range(4)]
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
        server, _, _ = self.start("--drain_seconds=0.2")
        result = {}

        def read():
            result["reply"] = server.request("POST", "/v1/completions", {
                "prompt": PROMPT, "max_tokens": 3900, "ignore_eos": True, "stream": True})

        reader = threading.Thread(target=read)
        reader.start()
        while server.metrics()["sessa_generation_tokens_total"] < 5:
            pass
        server.signal(signal.SIGTERM)
        reader.join()
        status, _, body = result["reply"]
        events = [line[6:] for line in body.split("\n") if line.startswith("data: ")]
        self.assertEqual(status, 200)
        self.assertEqual(events[-1], "[DONE]")
        self.assertIn("error", json.loads(events[-2]))
        self.assertEqual(server.wait(), 0)

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
