"""A real chat model, SmolLM2-135M-Instruct: greedy answers are those of the published weights in transformers, and chats are put into
words as its own template has them."""
import json
import re
import unittest

import transformers

from server_process import ROOT, ServerProcess

FOLDER = ROOT / "build" / "smollm2"
CASES = [json.loads(line) for line in (ROOT / "tests" / "reference" / "data" / "smollm2_instruct.jsonl").read_text().splitlines()]
TINY_GAP = 1e-3  # below it, another order of additions may pick the other token


@unittest.skipUnless(FOLDER.exists(), "no build/smollm2: ./dev setup makes it where its package can be had")
class SmolLm2Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess("--weight_dtype=f32", "--state_dtype=f32", model=FOLDER)
        cls.addClassCleanup(cls.server.stop)

    def ask(self, path, body):
        status, _, text = self.server.request("POST", path, body)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def test_greedy_answers(self):
        self.assertEqual(len(CASES), 13)
        for case in CASES:
            with self.subTest(case["text"]):
                body = {"temperature": 0, "max_tokens": len(case["output_ids"]), "return_token_ids": True}
                if "messages" in case:
                    reply = self.ask("/v1/chat/completions", body | {"messages": case["messages"]})
                    text = reply["choices"][0]["message"]["content"]
                else:
                    reply = self.ask("/v1/completions", body | {"prompt": case["prompt"]})
                    text = reply["choices"][0]["text"]
                self.assertGreater(case["smallest_logit_gap"], TINY_GAP)
                self.assertEqual(text, case["text"])

    def test_the_chat_of_the_readme(self):
        readme = (ROOT / "README.md").read_text()
        body, answer = re.search(r"-d '(\{\"messages\".*?\})'.*?\n {4}(The [^\n]*)\n", readme, re.S).groups()
        self.assertEqual(self.ask("/v1/chat/completions", json.loads(body))["choices"][0]["message"]["content"], answer)

    def test_chats_are_put_into_words_as_transformers_does(self):
        tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
        chats = [case["messages"] for case in CASES if "messages" in case]
        chats += [[{"role": "user", "content": " 12 <|im_end|> \n 34"}, {"role": "assistant", "content": "é\t"}, {"role": "user", "content": ""}]]
        for chat in chats:
            for more in (True, False):
                ids = tokenizer.apply_chat_template(chat, add_generation_prompt=more)["input_ids"]
                reply = self.ask("/tokenize", {"messages": chat, "add_generation_prompt": more})
                self.assertEqual(reply["tokens"], ids, chat)


if __name__ == "__main__":
    unittest.main()
