"""More than the server can do, for a moment: each request has one outcome, which is counted, and who is refused is told at once
and when to come again. Rates are measured by ./dev bench overload."""
import concurrent.futures
import json
import unittest

from server_process import ServerProcess, wait_until

REQUESTS = 150


class OverloadTest(unittest.TestCase):
    def test_every_request_has_one_outcome(self):
        server = ServerProcess("--max_num_seqs=2", "--max_queue_seconds=0.05", "--access_log=off")
        self.addCleanup(server.stop)
        body = {"prompt": "This is a story about Milo and Kira.", "max_tokens": 200, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as threads:
            sent = [threads.submit(server.request, "POST", "/v1/completions", body) for _ in range(REQUESTS)]
            self.assertEqual(server.request("GET", "/livez")[0], 200)
            self.assertEqual(server.request("GET", "/readyz")[0], 200)
            replies = [reply.result() for reply in sent]
        served = [reply for reply in replies if reply[0] == 200]
        refused = [reply for reply in replies if reply[0] != 200]
        for status, headers, text in refused:
            self.assertEqual(status, 503)
            self.assertGreaterEqual(int(headers["Retry-After"]), 1)
            self.assertEqual(json.loads(text)["error"]["code"], "overloaded")
        self.assertTrue(served)
        self.assertTrue(refused)
        wait_until(lambda: sum(self.series(server, "sessa_requests_total").values()) == REQUESTS)
        self.assertEqual(sum(self.series(server, "sessa_requests_received_total").values()), REQUESTS)
        outcomes = self.series(server, "sessa_requests_total")
        rejected = sum(count for name, count in outcomes.items() if 'outcome="rejected"' in name)
        self.assertEqual(rejected, len(refused))

    @staticmethod
    def series(server, name):
        return {key: value for key, value in server.metrics().items() if key.startswith(name + "{")}


if __name__ == "__main__":
    unittest.main()
