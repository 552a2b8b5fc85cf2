"""What each parameter does to the answer, on the real model: streams against whole answers, stops, log-probabilities."""
import concurrent.futures
import unittest

from openai_case import OpenAiCase
from server_process import PROMPT

PROMPTS = [PROMPT, "", "é", "naïve 🐝 数据 — ok", "Ω≈ç√∫˜µ≤≥÷", "\n\n\n", " ", "a" * 300, "1234567890" * 20, "🐝" * 40,
           "мир и труд", "こんにちは世界", "\u202eright to left\u202c", "tab\tand\r\nline", "x\u0000y", "👩‍👩‍👧‍👦 family",
           "def f(x):\n    return x\n", "{\"json\": [1, 2]}", "<|endoftext|> in text", "e\u0301 combined"]


class SamplingTest(OpenAiCase):
    def whole(self, **kwargs):
        choices = sorted(self.complete(**kwargs).choices, key=lambda c: c.index)
        return [(c.text, c.finish_reason) for c in choices]

    def streamed(self, **kwargs):
        texts, finishes = {}, {}
        for chunk in self.complete(stream=True, **kwargs):
            for choice in chunk.choices:
                self.assertNotIn(choice.index, finishes, "text after the finish reason")
                texts[choice.index] = texts.get(choice.index, "") + choice.text
                if choice.finish_reason is not None:
                    finishes[choice.index] = choice.finish_reason
        return [(texts[i], finishes[i]) for i in sorted(finishes)]

    def test_streams_are_whole_answers_for_many_prompts(self):
        cases = []
        for i, prompt in enumerate(PROMPTS):
            # Hot enough that the model's bytes are often no characters, and characters span tokens.
            for temperature in (0, 1, 2):
                cases.append(dict(prompt=prompt, temperature=temperature, seed=i, max_tokens=48, n=1 + i % 3,
                                  stop=[["e"], ["\n", "the coin"], None, [" a", "is in", "?", "\ufffd"]][i % 4],
                                  echo=i % 5 == 0))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            whole = list(pool.map(lambda case: self.whole(**case), cases))
            streamed = list(pool.map(lambda case: self.streamed(**case), cases))
        self.assertEqual(streamed, whole)
        self.assertGreater(len({text for answer in whole for text, _ in answer}), len(PROMPTS))
        self.assertTrue(any("\ufffd" in text for answer in whole for text, _ in answer), "no broken character was tried")

    def test_stop_strings_that_span_tokens(self):
        text = self.complete(max_tokens=32, extra={"ignore_eos": True}).choices[0].text
        self.assertGreater(len(text), 20)
        for begin in range(0, len(text) - 8, 3):
            stop = text[begin:begin + 8]
            end = text.index(stop)
            for stream in (False, True):
                make = self.streamed if stream else self.whole
                kwargs = dict(max_tokens=32, stop=[stop, "never to be seen"])
                self.assertEqual(make(extra={"ignore_eos": True}, **kwargs), [(text[:end], "stop")])
                self.assertEqual(make(extra={"ignore_eos": True, "include_stop_str_in_output": True}, **kwargs),
                                 [(text[:end] + stop, "stop")])

    def test_eos_ends_and_ignore_eos_does_not(self):
        ended = self.complete(max_tokens=400)
        self.assertEqual(ended.choices[0].finish_reason, "stop", "the demo ends its answers")
        length = ended.usage.completion_tokens
        self.assertLess(length, 400)
        self.assertEqual(self.complete(max_tokens=400, extra={"ignore_eos": True}).usage.completion_tokens, 400)
        longer = self.complete(max_tokens=400, extra={"min_tokens": length + 5})
        self.assertGreaterEqual(longer.usage.completion_tokens, length + 5)
        self.assertTrue(longer.choices[0].text.startswith(ended.choices[0].text))

    def test_min_tokens_holds_off_stop_strings(self):
        text = self.complete(max_tokens=32, extra={"ignore_eos": True}).choices[0].text
        first = text.strip()[0]
        held_off = self.complete(max_tokens=32, stop=[first], extra={"ignore_eos": True, "min_tokens": 10})
        self.assertGreaterEqual(held_off.usage.completion_tokens, 10)
        self.assertTrue(text.startswith(held_off.choices[0].text))

    def test_stop_token_ids(self):
        ids = self.complete(max_tokens=12, extra={"ignore_eos": True, "return_token_ids": True}).choices[0].token_ids
        stop = ids[5]
        reply = self.complete(max_tokens=12, extra={"stop_token_ids": [stop], "return_token_ids": True})
        self.assertEqual(reply.choices[0].token_ids, ids[:ids.index(stop) + 1])
        self.assertEqual(reply.choices[0].finish_reason, "stop")

    def test_logprobs_agree_with_the_text(self):
        for stream in (False, True):
            reply = self.complete(logprobs=3, max_tokens=16, stream=stream, extra={"ignore_eos": True})
            choices = [c for chunk in reply for c in chunk.choices] if stream else reply.choices
            text = "".join(c.text for c in choices)
            tokens = [t for c in choices if c.logprobs for t in c.logprobs.tokens]
            offsets = [o for c in choices if c.logprobs for o in c.logprobs.text_offset]
            own = [p for c in choices if c.logprobs for p in c.logprobs.token_logprobs]
            best = [t for c in choices if c.logprobs for t in c.logprobs.top_logprobs]
            self.assertEqual([len(tokens), len(offsets), len(own), len(best)], [16] * 4)
            self.assertEqual("".join(tokens), text)
            for token, offset, logprob, top in zip(tokens, offsets, own, best):
                self.assertEqual(text[offset:offset + len(token)], token)
                self.assertEqual(len(top), 3)
                self.assertAlmostEqual(max(top.values()), logprob, places=5)  # greedy
                self.assertLessEqual(logprob, 0)

    def test_echo_with_logprobs_scores_the_prompt(self):
        reply = self.complete(echo=True, logprobs=0, max_tokens=4, extra={"ignore_eos": True, "add_special_tokens": False})
        choice, usage = reply.choices[0], reply.usage
        self.assertTrue(choice.text.startswith(PROMPT))
        self.assertEqual(len(choice.logprobs.tokens), usage.prompt_tokens + usage.completion_tokens)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        self.assertTrue(all(p <= 0 for p in choice.logprobs.token_logprobs[1:]))
        # The same numbers when the model generates what was a prompt: both are the model's own distribution.
        generated = self.complete(logprobs=0, max_tokens=4, extra={"ignore_eos": True, "add_special_tokens": False})
        again = self.complete(prompt=choice.text, echo=True, logprobs=0, max_tokens=1, extra={"add_special_tokens": False})
        tokens = usage.prompt_tokens
        if again.choices[0].logprobs.tokens[:tokens + 4] == choice.logprobs.tokens:  # the text may be cut otherwise
            for a, b in zip(again.choices[0].logprobs.token_logprobs[tokens:tokens + 4],
                            generated.choices[0].logprobs.token_logprobs):
                self.assertAlmostEqual(a, b, places=4)
        # vLLM's field gives them too, one object for each token, its own first.
        scores = self.complete(max_tokens=0, extra={"prompt_logprobs": 2, "add_special_tokens": False}).choices[0].prompt_logprobs
        self.assertIsNone(scores[0])
        self.assertEqual([next(iter(s.values()))["logprob"] for s in scores[1:]],
                         choice.logprobs.token_logprobs[1:tokens])
        self.assertEqual("".join(next(iter(s.values()))["decoded_token"] for s in scores[1:]),
                         "".join(choice.logprobs.tokens[1:tokens]))
        self.assertTrue(all(sorted(v["rank"] for v in s.values())[:2] == [1, 2] for s in scores[1:]))
        # The rank of the prompt's own token does not depend on how many others are asked for.
        alone = self.complete(max_tokens=0, extra={"prompt_logprobs": 0, "add_special_tokens": False}).choices[0].prompt_logprobs
        self.assertEqual([v["rank"] for s in alone[1:] for v in s.values()],
                         [next(iter(s.values()))["rank"] for s in scores[1:]])
        self.assertGreater(max(v["rank"] for s in alone[1:] for v in s.values()), 2)  # beyond the two that were given
        only = self.complete(echo=True, max_tokens=0)
        self.assertEqual((only.choices[0].text, only.usage.completion_tokens), (PROMPT, 0))

    def test_choices_differ_and_repeat(self):
        def texts(seed):
            return self.whole(n=4, temperature=1.5, seed=seed, max_tokens=32)
        first = texts(5)
        self.assertEqual(texts(5), first)
        self.assertGreater(len(set(first)), 1)
        self.assertNotEqual(texts(6), first)
        # Choice i is what seed + i alone gives.
        self.assertEqual(self.whole(temperature=1.5, seed=6, max_tokens=32), first[1:2])

    def test_seeds_repeat_under_load(self):
        cases = [dict(prompt=PROMPTS[i % 5] or "x", temperature=1.2, seed=i, max_tokens=40, top_p=0.9, n=1 + i % 2)
                 for i in range(24)]
        alone = [self.whole(extra={"top_k": 50, "repetition_penalty": 1.1}, **case) for case in cases]
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            for make in (self.whole, self.streamed):
                together = list(pool.map(
                    lambda case: make(extra={"top_k": 50, "repetition_penalty": 1.1}, **case), cases))
                self.assertEqual(together, alone)

    def test_filters_leave_the_best_token(self):
        greedy = self.whole(max_tokens=16)
        for extra in ({"top_k": 1}, {"min_p": 1}):
            self.assertEqual(self.whole(max_tokens=16, temperature=2, seed=1, extra=extra), greedy)
        self.assertEqual(self.whole(max_tokens=16, temperature=2, seed=1, top_p=1e-9), greedy)

    def test_bias_and_allowed_tokens(self):
        biased = self.complete(max_tokens=4, logit_bias={"77": 100}, extra={"return_token_ids": True})
        self.assertEqual(biased.choices[0].token_ids, [77] * 4)
        allowed = self.complete(max_tokens=8, temperature=2, seed=3,
                                extra={"allowed_token_ids": [80, 81], "return_token_ids": True})
        self.assertLessEqual(set(allowed.choices[0].token_ids), {80, 81})
        # A token that may not come again: presence and repetition count.
        once = self.complete(max_tokens=2, presence_penalty=2, frequency_penalty=2, logit_bias={"77": 100, "78": 99},
                             extra={"return_token_ids": True})
        self.assertEqual(once.choices[0].token_ids, [77, 78])

    def test_chat(self):
        kwargs = dict(model="demo", messages=[{"role": "user", "content": "Wo ist die Münze? 🐝"}], temperature=1, seed=4,
                      max_completion_tokens=24, n=2)
        whole = self.client.chat.completions.create(**kwargs)
        texts, finishes = ["", ""], [None, None]
        for chunk in self.client.chat.completions.create(stream=True, **kwargs):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                finishes[choice.index] = choice.finish_reason or finishes[choice.index]
        self.assertEqual(texts, [c.message.content for c in whole.choices])
        self.assertEqual(finishes, [c.finish_reason for c in whole.choices])
        scored = self.client.chat.completions.create(logprobs=True, top_logprobs=2, **kwargs)
        for choice in scored.choices:
            data = b"".join(bytes(t.bytes) for t in choice.logprobs.content)
            self.assertTrue(choice.message.content.startswith(data.decode(errors="ignore")[:5]))

    def test_truncated_prompts(self):
        reply = self.complete(max_tokens=1, extra={"truncate_prompt_tokens": 7})
        self.assertEqual(reply.usage.prompt_tokens, 7)


if __name__ == "__main__":
    unittest.main()
