"""The REST API of the real server through the openai client, and by hand where the client would not go."""
import gzip
import json
import threading
import unittest

import openai

from openai_case import OpenAiCase
from server_process import PROMPT, ROOT, events_of


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

    def test_responses(self):
        kwargs = {"model": "demo", "input": "Where is the coin?", "instructions": "Be brief.", "max_output_tokens": 12,
                  "temperature": 0, "extra_body": {"ignore_eos": True}}
        whole = self.client.responses.create(**kwargs)
        self.assertEqual((whole.status, whole.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        self.assertEqual((whole.usage.output_tokens, whole.usage.total_tokens - whole.usage.input_tokens), (12, 12))
        chat = self.client.chat.completions.create(
            model="demo", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is the coin?"}],
            max_tokens=12, temperature=0, extra_body={"ignore_eos": True})
        self.assertEqual(whole.output_text, chat.choices[0].message.content)
        # The package's own reader of streams, which puts the response together from its events.
        with self.client.responses.stream(**kwargs) as stream:
            events = list(stream)
        types = [event.type for event in events]
        self.assertEqual(events[-1].response.output_text, whole.output_text)
        self.assertEqual("".join(e.delta for e in events if e.type == "response.output_text.delta"), whole.output_text)
        self.assertEqual(types[:4], ["response.created", "response.in_progress", "response.output_item.added",
                                     "response.content_part.added"])
        self.assertEqual(types[-4:], ["response.output_text.done", "response.content_part.done",
                                      "response.output_item.done", "response.incomplete"])
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.responses.create(model="demo", input="x", previous_response_id="resp_1")
        self.assertEqual(caught.exception.param, "previous_response_id")

    def test_tools_are_shown_where_none_is_to_be_called(self):
        tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
        kwargs = {"model": "demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "tools": [tool]}
        self.assertEqual(len(self.client.chat.completions.create(tool_choice="none", **kwargs).choices), 1)
        for choice in ("auto", "required", {"type": "function", "function": {"name": "look"}}, openai.omit):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.chat.completions.create(tool_choice=choice, **kwargs)
            self.assertEqual(caught.exception.param, "tool_choice")

    def test_compressed_body_and_the_tokenizers_file(self):
        body = gzip.compress(json.dumps({"prompt": PROMPT, "max_tokens": 8, "temperature": 0}).encode())
        status, _, text = self.server.request("POST", "/v1/completions", body,
                                              {"Content-Type": "application/json", "Content-Encoding": "gzip"})
        self.assertEqual(status, 200, text)
        self.assertEqual(json.loads(text)["choices"][0]["text"], self.complete(max_tokens=8).choices[0].text)
        info = json.loads(self.server.request("GET", "/tokenizer_info")[2])
        config = json.loads((ROOT / "models" / "demo" / "tokenizer_config.json").read_text())
        self.assertEqual({k: info[k] for k in config}, config)

    def test_a_page_elsewhere_may_call(self):
        status, headers, _ = self.server.request("OPTIONS", "/v1/chat/completions", headers={
            "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type"})
        self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, "http://localhost:3000"))
        self.assertEqual(headers["Access-Control-Allow-Headers"], "authorization,content-type")

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
