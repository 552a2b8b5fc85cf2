"""API keys end to end: keys that the server makes, a reload while a stream runs, caches that tenants do not share."""
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import tempfile
import unittest

import grpc_client
import listen_test
from grpc_client import pb
from server_process import BINARY, PROMPT, ROOT, ServerProcess, slow_model, wait_until

LONG_PROMPT = PROMPT * 8  # some pages


def run(*flags):
    return subprocess.run([BINARY, *flags], capture_output=True, text=True, timeout=120)


def make_key(fields):
    """(the key, its line)"""
    done = run(f"--make_key={fields}")
    assert done.returncode == 0, done.stderr
    return done.stderr.split()[-1], done.stdout


class TenantsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.keys = pathlib.Path(folder.name, "keys")

    def start(self, text, **which):
        self.keys.write_text(text)
        server = ServerProcess(f"--api_keys_file={self.keys}", **which)
        self.addCleanup(server.stop)
        return server

    def replace(self, text):
        """As editors, kubelet and careful people do it: the old file or the new one, never half of one."""
        new = self.keys.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.keys)

    @staticmethod
    def complete(server, key, **fields):
        body = {"prompt": "x", "max_tokens": 1, **fields}
        return server.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {key}"})

    def status(self, server, key):
        return self.complete(server, key)[0]

    def test_a_key_that_the_server_made(self):
        key, line = make_key("alice weight=4 rate=0.001 burst=2")
        self.assertNotIn(key.removeprefix("sessa-"), line)
        server = self.start("# ours\n" + line)
        status, headers, _ = self.complete(server, key)
        self.assertEqual(status, 200)
        self.assertEqual(headers["x-ratelimit-remaining-requests"], "1")
        self.assertEqual(self.status(server, line.split()[0]), 401)  # the file's hash is no key
        self.assertEqual(self.status(server, key[:-1]), 401)
        self.assertEqual(self.status(server, key), 200)
        status, headers, _ = self.complete(server, key)
        self.assertEqual(status, 429)
        self.assertGreater(int(headers["Retry-After"]), 900)
        self.assertNotIn(key, server.stderr())
        self.assertEqual(server.metrics()['sessa_tenant_requests_total{tenant="alice"}'], 2)

    def test_bad_fields_and_files_are_one_clear_line(self):
        self.keys.write_text("plain team weight=x\n")
        demo = f"--model={ROOT / 'models' / 'demo'}"
        for flags, expected in [(["--make_key=alice weight=0"], "weight"), (["--make_key=a b"], "word 3"),
                                (["--hash_keys=/nowhere"], "/nowhere"),
                                ([demo, f"--api_keys_file={self.keys}"], f"{self.keys}: API keys, line 1, weight"),
                                ([demo, "--host=0.0.0.0"], "--insecure"), ([demo, "--host=::"], "--make_key")]:
            with self.subTest(flags):
                done = run("--http_port=0", "--grpc_port=0", *flags)
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertEqual(len(done.stderr.splitlines()), 1)
                self.assertIn(expected, done.stderr)

    def test_an_open_address_is_served_with_keys_or_when_it_is_meant(self):
        key, line = make_key("alice")
        self.keys.write_text(line)
        for flags, code in [(["--host=0.0.0.0", f"--api_keys_file={self.keys}"], 401), (["--host=0.0.0.0", "--insecure"], 200)]:
            server = ServerProcess(*flags)
            self.addCleanup(server.stop)
            self.assertEqual(server.request("GET", "/v1/models")[0], code)
            self.assertEqual(server.stop(), 0)

    def test_plain_keys_are_served_with_a_warning_and_can_be_hashed(self):
        self.keys.write_text("secret team\n")
        hashed = run(f"--hash_keys={self.keys}").stdout
        self.assertTrue(hashed.startswith("sha256:") and hashed.endswith(" team\n"), hashed)
        server = self.start("secret team\n")
        self.assertEqual(self.status(server, "secret"), 200)
        self.assertIn("1 API keys in plain text", server.stderr())
        self.assertNotIn("secret", server.stderr())
        self.replace(hashed)
        wait_until(lambda: "read again" in server.stderr())
        self.assertEqual(self.status(server, "secret"), 200)
        self.assertEqual(server.stderr().count("plain text"), 1)

    def test_reload_while_a_stream_runs(self):
        old, old_line = make_key("alice")
        new, new_line = make_key("alice")
        server = self.start(old_line, model=slow_model())
        host, port = server.http_address.rsplit(":", 1)
        stream = http.client.HTTPConnection(host, int(port), timeout=120)
        self.addCleanup(stream.close)
        stream.request("POST", "/v1/completions", json.dumps(
            {"prompt": PROMPT, "max_tokens": 3900, "ignore_eos": True, "stream": True}),
            {"Content-Type": "application/json", "Authorization": f"Bearer {old}"})
        reply = stream.getresponse()
        reply.readline()
        # Not one: what was there stays, and the server goes on.
        self.replace("alice wieght=3\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "API keys stay as they were" in server.stderr())
        self.assertEqual((self.status(server, old), self.status(server, new)), (200, 401))
        self.replace("")  # would open the server to everybody
        server.signal(signal.SIGHUP)
        wait_until(lambda: "holds no API key" in server.stderr())
        self.assertEqual((self.status(server, old), self.status(server, "")), (200, 401))
        self.replace(new_line)
        server.signal(signal.SIGHUP)
        wait_until(lambda: "read again, 1 keys of 1 tenants" in server.stderr())
        self.assertEqual((self.status(server, old), self.status(server, new)), (401, 200))
        # The stream goes on, and counts as alice's until it ends.
        running = lambda: server.metrics()['sessa_tenant_requests_running{tenant="alice"}']
        self.assertEqual(running(), 1)
        for _ in range(10):
            self.assertIn(reply.readline()[:6], (b"data: ", b"\n"))
        stream.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: running() == 0)
        metrics = server.metrics()
        self.assertEqual(metrics['sessa_tenant_requests_total{tenant="alice"}'], 4)  # of both keys
        self.assertGreater(metrics['sessa_tenant_tokens_total{tenant="alice",kind="generation"}'], 3)

    def test_a_changed_file_is_read_without_a_signal(self):
        old, old_line = make_key("alice")
        new, new_line = make_key("bob weight=2")
        server = self.start(old_line)
        self.replace(old_line + new_line)
        wait_until(lambda: self.status(server, new) == 200)
        self.assertEqual(self.status(server, old), 200)
        self.replace(new_line)
        wait_until(lambda: self.status(server, old) == 401)
        self.keys.unlink()
        wait_until(lambda: "stay as they were" in server.stderr())
        self.assertEqual(self.status(server, new), 200)

    def test_a_signal_brings_keys_and_certificates(self):
        folder = self.keys.parent
        cert, key = listen_test.make_certificate(folder, "first")
        old, old_line = make_key("alice")
        new, new_line = make_key("alice")
        self.keys.write_text(old_line)
        server = ServerProcess(f"--api_keys_file={self.keys}", f"--tls_cert={cert}", f"--tls_key={key}")
        self.addCleanup(server.stop)
        for path, renewed in zip((cert, key), listen_test.make_certificate(folder, "second")):
            os.replace(renewed, path)
        self.replace(new_line)
        server.signal(signal.SIGHUP)

        def status(api_key):
            context = ssl.create_default_context(cafile=str(cert))
            host, port = server.http_address.rsplit(":", 1)
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=120)
            try:
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {api_key}"})
                return connection.getresponse().status
            except ssl.SSLError:  # the old certificate still
                return None
            finally:
                connection.close()

        wait_until(lambda: status(new) == 200)
        self.assertEqual(status(old), 401)

    def test_tenants_do_not_share_their_prefix_cache(self):
        keys, lines = zip(*(make_key(tenant) for tenant in ("alice", "alice", "bob")))
        server = self.start("".join(lines))
        first, second, other = keys

        def cached(key):
            status, _, body = self.complete(server, key, prompt=LONG_PROMPT)
            self.assertEqual(status, 200, body)
            return json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"]

        def cached_by_grpc(key):
            request = pb.GenerateRequest(text=LONG_PROMPT, sampling=pb.Sampling(max_tokens=1))
            return next(stub.Generate(request, metadata=[("authorization", f"Bearer {key}")])).started.cached_tokens

        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)
        self.assertEqual(cached(first), 0)
        hit = cached(first)
        self.assertGreater(hit, 0)
        self.assertEqual(cached_by_grpc(other), 0)  # what alice sent, bob cannot find out
        self.assertEqual(cached(other), hit)
        self.assertEqual(cached_by_grpc(second), hit)  # another key of alice's


if __name__ == "__main__":
    unittest.main()
