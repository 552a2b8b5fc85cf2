"""models/demo/recall.jsonl through the server: the published greedy answers, and as many right ones as the README says.

The model sees `id 0` before each prompt (add_bos_token), answers greedily up to the line's end, with float32 state.
"""
import concurrent.futures
import json
import re
import unittest

import openai

from server_process import ROOT, ServerProcess

DEMO = ROOT / "models" / "demo"
TINY_GAP = 1e-3  # below it, another order of additions may pick the other token; no published gap is that small


class RecallTest(unittest.TestCase):
    def run_with(self, *flags):
        server = ServerProcess("--state_dtype=f32", *flags)
        self.addCleanup(server.stop)
        client = openai.OpenAI(base_url=f"http://{server.http_address}/v1", api_key="none", max_retries=0, timeout=300)
        cases = [json.loads(line) for line in (DEMO / "recall.jsonl").read_text().splitlines()]
        self.assertEqual(len(cases), 80)

        def answer(case):
            reply = client.completions.create(model="demo", prompt=case["prompt"], temperature=0, max_tokens=40,
                                              stop=["\n"])
            return reply.choices[0].text, reply.usage.prompt_tokens

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(answer, cases))
        right = {}
        for case, (text, prompt_tokens) in zip(cases, answers):
            self.assertGreater(case["smallest_logit_gap"], TINY_GAP)
            self.assertEqual(text, case["greedy_text"], f"gap {case['smallest_logit_gap']}: {case['prompt'][-60:]}")
            self.assertEqual(prompt_tokens, case["prompt_tokens"])
            right.setdefault(case["filler"], [0, 0])
            right[case["filler"]][0] += text == case["answer"]
            right[case["filler"]][1] += 1
        client.close()
        return right

    def test_answers_are_those_of_the_readme(self):
        rows = re.findall(r"^\| (\d+) \| (\d+) of (\d+) \|$", (DEMO / "README.md").read_text(), re.M)
        self.assertEqual(len(rows), 4)
        expected = {int(filler): [int(right), int(count)] for filler, right, count in rows}
        self.assertEqual(self.run_with("--weight_dtype=f32"), expected)

    def test_chunks_and_small_pages_change_nothing(self):
        self.run_with("--weight_dtype=f32", "--page_size=16", "--max_step_tokens=48")


if __name__ == "__main__":
    unittest.main()
