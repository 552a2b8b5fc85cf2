"""POST /v1/similarity on the real model: texts that lead to the same continuation are near, others far; one request is one answer
that is the same again."""
import json
import unittest

import grpc_client
from grpc_client import pb
from server_process import ServerProcess

STORY = "Maya said that the {} key is in the barn.\nQuestion: Where is the {} key?\nAnswer:"


class SimilarityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess("--log_format=json")
        cls.addClassCleanup(cls.server.stop)

    def ask(self, texts, **fields):
        status, headers, body = self.server.request("POST", "/v1/similarity", {"input": texts, **fields})
        return status, headers, json.loads(body)

    def test_meaning_is_what_follows(self):
        texts = [STORY.format("red", "red"), STORY.format("old", "old"), "One day", STORY.format("red", "red")]
        status, _, answer = self.ask(texts, n=16, max_tokens=8, seed=3)
        self.assertEqual(status, 200, answer)
        distance = answer["distance"]
        for i in range(4):
            self.assertEqual(distance[i][i], 0)
            for j in range(4):
                self.assertEqual(distance[i][j], distance[j][i])
                self.assertAlmostEqual(distance[i][j], answer["kl"][i][j] + answer["kl"][j][i], places=4)
        self.assertEqual(distance[0][3], 0, "the same text")
        self.assertEqual(distance[0][1], distance[1][3])
        self.assertLess(distance[0][1], distance[0][2], "the answer is the same")
        self.assertGreater(distance[0][2], 3 * answer["distance_standard_error"][0][2])
        self.assertGreater(answer["distance_per_token"][0][2], answer["distance_per_token"][0][1])
        self.assertEqual((answer["object"], answer["model"], answer["seed"]), ("similarity", "demo", 3))
        self.assertGreater(answer["usage"]["completion_tokens"], 64)
        self.assertEqual(self.ask(texts, n=16, max_tokens=8, seed=3)[2]["distance"], distance)
        self.assertNotEqual(self.ask(texts, n=16, max_tokens=8, seed=4)[2]["distance"], distance)
        # Token ids are texts too; without a seed one is drawn, and told.
        status, _, drawn = self.ask([[1, 2, 3], [4]], n=2, max_tokens=2)
        self.assertEqual(status, 200, drawn)
        self.assertEqual(self.ask([[1, 2, 3], [4]], n=2, max_tokens=2, seed=drawn["seed"])[2]["kl"], drawn["kl"])

    def test_grpc_says_the_same(self):
        texts = [STORY.format("red", "red"), "One day", "Once"]
        channel, stub = grpc_client.connect(self.server)
        self.addCleanup(channel.close)
        reply = stub.Similarity(pb.SimilarityRequest(input=[pb.SimilarityText(text=text) for text in texts], n=4, max_tokens=4, seed=5))
        _, _, answer = self.ask(texts, n=4, max_tokens=4, seed=5)
        self.assertEqual([(p.first, p.second) for p in reply.pairs], [(0, 1), (0, 2), (1, 2)])
        for pair in reply.pairs:
            self.assertEqual(pair.distance.value, answer["distance"][pair.first][pair.second])
            self.assertEqual(pair.distance.per_token_standard_error,
                             answer["distance_per_token_standard_error"][pair.first][pair.second])
            self.assertEqual(pair.kl_first_second.value, answer["kl"][pair.first][pair.second])
            self.assertEqual(pair.kl_second_first.value, answer["kl"][pair.second][pair.first])

    def test_bad_requests_name_their_field(self):
        for texts, fields, param in (("one", {}, "input"), ([], {}, "input"), (["a", ""], {"add_special_tokens": False}, "input"),
                                     (["a", 1], {}, "input[1]"), (["a"] * 17, {}, "input"), (["a", "b"], {"n": 1}, "n"),
                                     (["a", "b"], {"n": 257}, "n"), (["a", "b"], {"max_tokens": 0}, "max_tokens"),
                                     (["a", "b"], {"max_tokens": 1 << 30}, "max_tokens"), (["a", "b"], {"model": "x"}, "model"),
                                     (["a", "b"], {"priority": 1001}, "priority"), (["a", "b"], {"timeout": 0}, "timeout"),
                                     (["a", "b " * 100000], {}, "input"), (["a", "b"], {"temperature": 1}, "temperature"),
                                     (["a", "b"], {"guided_json": {}}, "guided_json")):
            with self.subTest(param=param, fields=fields):
                status, _, answer = self.ask(texts, **fields)
                self.assertEqual(status, 404 if param == "model" else 400, answer)
                self.assertEqual(answer["error"]["param"], param, answer)
        status, headers, _ = self.ask(["a", "b"], n=2, max_tokens=1, temprature=2)
        self.assertEqual((status, headers["X-Sessa-Ignored-Fields"]), (200, "temprature"))
        self.assertEqual(self.server.request("GET", "/v1/similarity")[0], 405)
        metrics = self.server.metrics()
        counted = lambda prefix: sum(value for name, value in metrics.items() if name.startswith(prefix + "{"))
        self.assertEqual(counted("sessa_requests_received_total"), counted("sessa_requests_total"))


if __name__ == "__main__":
    unittest.main()
