"""Clients that leave, wait too long or read too slowly, a full queue, and what the metrics say of all of them."""
import collections
import concurrent.futures
import json
import re
import socket
import unittest

import grpc

import grpc_client
from grpc_client import pb
from server_process import PROMPT, ServerProcess, events_of, slow_model, wait_until

LONG = {"prompt": PROMPT, "max_tokens": 3900, "ignore_eos": True}


def outcomes(metrics):
    return {re.search(r'outcome="(\w+)"', k).group(1): v for k, v in metrics.items() if k.startswith("sessa_requests_total{")}


def codes(metrics):
    """{HTTP status: requests} over all protocols, without those that none had."""
    sums = collections.Counter()
    for k, v in metrics.items():
        if k.startswith("sessa_responses_total{"):
            sums[int(re.search(r'code="(\d+)"', k).group(1))] += v
    return +sums


def received(metrics):
    return sum(v for k, v in metrics.items() if k.startswith("sessa_requests_received_total"))


class ClientsTest(unittest.TestCase):
    def start(self, *flags, **which):
        server = ServerProcess(*flags, **which)
        self.addCleanup(server.stop)
        return server

    def connect(self, server, body, receive_buffer=None):
        """A raw connection that has sent a completion and not read its answer."""
        client = socket.socket()
        self.addCleanup(client.close)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, port = server.http_address.rsplit(":", 1)
        client.settimeout(120)
        client.connect((host, int(port)))
        body = json.dumps(body).encode()
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                       b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return client

    def wait_for_rest(self, server):
        """Metrics of when all have ended, in the engine too, and all pages are free."""
        names = ("num_requests_in_flight", "num_requests_running", "num_requests_waiting", "state_cache_usage_ratio")
        seen = {}

        def at_rest():
            seen.update(server.metrics())
            return not any(seen[f"sessa_{name}"] for name in names)

        wait_until(at_rest)
        return seen

    def test_a_client_that_leaves_frees_its_pages(self):
        server = self.start(model=slow_model())
        for stream in (True, False):
            client = self.connect(server, LONG | {"stream": stream})
            tokens = server.metrics()["sessa_generation_tokens_total"]
            wait_until(lambda: server.metrics()["sessa_generation_tokens_total"] > tokens)
            wait_until(lambda: server.metrics()["sessa_state_cache_usage_ratio"] > 0)
            client.close()
            self.wait_for_rest(server)
        self.assertEqual(outcomes(server.metrics())["cancelled"], 2)

    def test_a_reader_that_is_too_slow_is_cancelled(self):
        server = self.start()
        client = self.connect(server, LONG | {"stream": True, "n": 4, "logprobs": 20}, receive_buffer=1 << 17)
        wait_until(lambda: server.metrics()["sessa_generation_tokens_total"] > 100)
        wait_until(lambda: server.metrics()["sessa_num_requests_running"] == 0)
        self.assertLess(server.metrics()["sessa_generation_tokens_total"], 4 * 3900)
        wait_until(lambda: server.metrics()["sessa_state_cache_usage_ratio"] == 0)  # it holds no pages while it is not read
        data = b""
        while part := client.recv(1 << 16):  # and then it hears why
            data += part
        self.assertTrue(data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), data[-100:])
        self.assertIn(b'"code":"slow_reader"', data[-2000:])
        self.assertEqual(outcomes(self.wait_for_rest(server))["slow_reader"], 1)

    def test_outcomes_sum_to_the_requests_received(self):
        server = self.start("--max_num_seqs=1", "--max_queued_requests=1", model=slow_model())
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)

        def status(body):
            return server.request("POST", "/v1/completions", body)[0]

        self.assertEqual(status({"prompt": PROMPT, "max_tokens": 3, "ignore_eos": True}), 200)
        self.assertEqual(status({"prompt": PROMPT, "allowed_token_ids": [80], "stop_token_ids": [80]}), 200)
        self.assertEqual(status({"prompt": PROMPT, "temperature": -1}), 400)
        self.assertEqual(status({"prompt": PROMPT, "model": "other"}), 404)
        self.assertEqual(server.request("POST", "/v1/completions", "{", {"Content-Type": "text/plain"})[0], 415)
        self.assertEqual(status(LONG | {"timeout": 0.1}), 504)
        with self.assertRaises(grpc.RpcError) as caught:
            list(stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(max_tokens=3900, ignore_eos=True)),
                               timeout=0.3))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.wait_for_rest(server)

        # One runs, one waits, one more is refused; then both leave.
        running = self.connect(server, LONG | {"stream": True})
        wait_until(lambda: server.metrics()["sessa_num_requests_running"] == 1)
        waiting = self.connect(server, LONG | {"stream": True})
        wait_until(lambda: server.metrics()["sessa_num_requests_waiting"] == 1)
        status_code, headers, body = server.request("POST", "/v1/completions", {"prompt": "x"})
        self.assertEqual(status_code, 503)
        self.assertGreaterEqual(int(headers["Retry-After"]), 1)
        self.assertEqual(json.loads(body)["error"]["code"], "overloaded")
        with self.assertRaises(grpc.RpcError) as caught:
            list(stub.Generate(pb.GenerateRequest(text="x"), timeout=120))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        waiting.close()
        running.close()
        self.wait_for_rest(server)

        # What comes while draining.
        last = self.connect(server, LONG | {"stream": True})
        wait_until(lambda: server.metrics()["sessa_num_requests_running"] == 1)
        server.signal()
        wait_until(lambda: server.request("GET", "/readyz")[0] == 503)
        wait_until(lambda: status({"prompt": "x", "max_tokens": 1}) == 503)
        before = server.metrics()
        last.close()
        self.assertEqual(before["sessa_num_requests_in_flight"], 1)
        counts = outcomes(before)
        self.assertEqual(sum(counts.values()) + 1, received(before))
        told = codes(before)
        self.assertEqual(told.pop(503), counts["unavailable"] + counts["rejected"])
        self.assertEqual(told, {200: 2, 400: 1, 404: 1, 415: 1, 499: 2, 504: 2})
        self.assertGreaterEqual(counts.pop("unavailable") + counts.pop("rejected"), 3)
        self.assertEqual(counts, {"length": 1, "stop": 1, "invalid": 2, "not_found": 1, "deadline": 2, "cancelled": 2,
                                  "slow_reader": 0, "unauthenticated": 0, "error": 0})
        self.assertEqual(server.wait(), 0)

    def test_many_clients_of_all_kinds(self):
        server = self.start()
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)

        def client(i):
            kind = i % 4
            if kind == 0:
                status, _, body = server.request("POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 20, "stream": True})
                self.assertEqual((status, events_of(body)[-1]), (200, "[DONE]"))
            elif kind == 1:
                list(stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(max_tokens=20)), timeout=120))
            elif kind == 2:
                raw = self.connect(server, LONG | {"stream": True})
                raw.recv(1)
                raw.close()
            else:
                call = stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(max_tokens=3900, ignore_eos=True)))
                next(call)
                call.cancel()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(client, range(64)))
        metrics = self.wait_for_rest(server)
        counts = outcomes(metrics)
        self.assertEqual(received(metrics), 64)
        self.assertEqual(sum(counts.values()), 64)
        self.assertEqual(counts["cancelled"], 32)


if __name__ == "__main__":
    unittest.main()
