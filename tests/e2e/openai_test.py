"""The REST API of the real server through the openai client, and by hand where the client would not go."""
import json
import threading
import unittest

from openai_case import OpenAiCase
from server_process import PROMPT, events_of


class OpenAiTest(OpenAiCase):
    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["demo"])

    def test_streaming_equals_one_shot(self):
        cases = [
            {},
            {"temperature": 1, "seed": 7, "max_tokens": 64},
            {"temperature": 1.5, "seed": 8, "max_tokens": 64, "n": 3},
            {"stop": ["the ", " in"], "temperature": 1, "seed": 9},
            {"echo": True},
            {"prompt": "é", "temperature": 2, "seed": 3, "max_tokens": 64},  # breaks UTF-8 now and then
        ]
        for case in cases:
            with self.subTest(case):
                whole = self.complete(**case)
                texts = [""] * len(whole.choices)
                finishes = [None] * len(whole.choices)
                for chunk in self.complete(stream=True, **case):
                    for choice in chunk.choices:
                        self.assertIsNone(finishes[choice.index], "text after the finish reason")
                        texts[choice.index] += choice.text
                        finishes[choice.index] = choice.finish_reason
                self.assertEqual(texts, [c.text for c in sorted(whole.choices, key=lambda c: c.index)])
                self.assertEqual(finishes, [c.finish_reason for c in sorted(whole.choices, key=lambda c: c.index)])

    def test_same_alone_and_in_a_crowd(self):
        alone = self.complete(temperature=1, seed=11, max_tokens=48).choices[0].text
        results = [None] * 12

        def run(i):
            results[i] = self.complete(temperature=1, seed=11 if i % 3 == 0 else i, max_tokens=48).choices[0].text

        threads = [threading.Thread(target=run, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(results[::3], [alone] * 4)
        self.assertGreater(len(set(results)), 1)

    def test_stream_usage_and_done(self):
        status, headers, body = self.server.request("POST", "/v1/completions", {
            "prompt": PROMPT, "max_tokens": 5, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}})
        self.assertEqual(status, 200)
        self.assertTrue(headers["Content-Type"].startswith("text/event-stream"))
        events = events_of(body)
        self.assertEqual(events[-1], "[DONE]")
        last = json.loads(events[-2])
        self.assertEqual(last["choices"], [])
        self.assertEqual(last["usage"]["completion_tokens"], 5)

    def test_bad_inputs(self):
        def error(body, headers=None):
            status, _, text = self.server.request("POST", "/v1/completions", body, headers)
            return status, json.loads(text)["error"]

        status, problem = error({"prompt": "x", "temperature": -1})
        self.assertEqual((status, problem["param"]), (400, "temperature"))
        status, problem = error({"prompt": [1024]})
        self.assertEqual((status, problem["param"]), (400, "prompt"))
        status, problem = error({"prompt": "x", "max_tokens": 5000})
        self.assertEqual((status, problem["code"]), (400, "context_length_exceeded"))
        status, problem = error({"prompt": "x", "model": "other"})
        self.assertEqual((status, problem["code"]), (404, "model_not_found"))
        status, _ = error("{", {"Content-Type": "application/json"})
        self.assertEqual(status, 400)
        self.assertEqual(self.server.request("GET", "/v1/completions")[0], 405)
        self.assertEqual(self.server.request("GET", "/nowhere")[0], 404)


if __name__ == "__main__":
    unittest.main()
