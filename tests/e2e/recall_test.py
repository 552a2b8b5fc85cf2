"""models/demo/recall.jsonl through the server: the published greedy answers, and as many right ones as the README says.

The model sees `id 0` before each prompt (add_bos_token), answers greedily up to the line's end, with float32 state. Coarser
arithmetic must answer as many questions rightly, though some texts may differ.
"""
import concurrent.futures
import pathlib
import unittest

import openai

import recall_check
from server_process import ROOT, ServerProcess

TINY_GAP = 1e-3  # below it, another order of additions may pick the other token; no published gap is that small
CASES, EXPECTED = recall_check.load(ROOT / "models" / "demo")


class RecallTest(unittest.TestCase):
    def run_with(self, *flags, same_texts=True):
        server = ServerProcess(*flags)
        self.addCleanup(server.stop)
        client = openai.OpenAI(base_url=f"http://{server.http_address}/v1", api_key="none", max_retries=0, timeout=300)
        self.assertEqual(len(CASES), 80)

        def answer(case):
            reply = client.completions.create(model="demo", prompt=case["prompt"], temperature=0, max_tokens=40,
                                              stop=["\n"])
            return reply.choices[0].text, reply.usage.prompt_tokens

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(answer, CASES))
        differing = 0
        for case, (text, prompt_tokens) in zip(CASES, answers):
            self.assertGreater(case["smallest_logit_gap"], TINY_GAP)
            if same_texts:
                self.assertEqual(text, case["greedy_text"], f"gap {case['smallest_logit_gap']}: {case['prompt'][-60:]}")
            differing += text != case["greedy_text"]
            self.assertEqual(prompt_tokens, case["prompt_tokens"])
        right = recall_check.count_right(CASES, [text for text, _ in answers])
        client.close()
        print(*flags, "right, asked:", right, "texts that differ:", differing)
        return right

    def test_answers_are_those_of_the_readme(self):
        self.assertEqual(self.run_with("--weight_dtype=f32", "--state_dtype=f32"), EXPECTED)

    def test_chunks_and_small_pages_change_nothing(self):
        self.run_with("--weight_dtype=f32", "--state_dtype=f32", "--page_size=16", "--max_step_tokens=48")

    def test_coarser_formats_know_as_much(self):
        # By default activations are rounded with bf16 weights where the CPU multiplies these faster.
        formats = [["--weight_dtype=bf16"], ["--weight_dtype=bf16", "--activation_dtype=f32"], ["--weight_dtype=int8"]]
        if "avx512_vnni" in pathlib.Path("/proc/cpuinfo").read_text():
            formats.append(["--weight_dtype=int8", "--activation_dtype=int8"])
        for flags in formats:
            right = self.run_with(*flags, same_texts=False)
            self.assertTrue(recall_check.knows_as_much(right, EXPECTED), f"{flags}: {right}")
        # State in 8 bits errs more (docs/performance.md): a few answers are others, some of them right.
        right = self.run_with("--weight_dtype=f32", "--state_dtype=int8", same_texts=False)
        self.assertTrue(recall_check.knows_as_much(right, EXPECTED, allowed=2), right)

    def test_too_few_right_answers_show(self):
        self.assertFalse(recall_check.knows_as_much({**EXPECTED, 0: [EXPECTED[0][0] - 2, EXPECTED[0][1]]}, EXPECTED))
        self.assertFalse(recall_check.knows_as_much({}, EXPECTED))


if __name__ == "__main__":
    unittest.main()
