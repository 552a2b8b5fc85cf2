"""The tokenizer against Hugging Face's `tokenizers`: the same ids and the same text."""
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

import corpus

TOOL = os.environ["SESSA_TOKENIZE"]
GPT2 = None
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def run_tool(arguments, values):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([TOOL, *arguments], input=lines, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


class TokenizerTest(unittest.TestCase):
    def compare(self, folder, reference, prefix=()):
        texts = [t.encode("utf-8", "replace").decode() for t in corpus.texts()]
        answers = run_tool([folder], texts)
        self.assertEqual(len(answers), len(texts))
        for text, answer in zip(texts, answers):
            expected = reference.encode(text, add_special_tokens=False).ids
            self.assertEqual(answer.get("ids"), expected, repr(text[:200]))
            self.assertEqual(answer["special"], list(prefix) + reference.encode(text).ids)
            self.assertEqual(answer["decoded"], reference.decode(expected, skip_special_tokens=False), repr(text[:200]))
            self.assertEqual(answer["skipped"], reference.decode(expected, skip_special_tokens=True))
        rng = random.Random(2)
        size = reference.get_vocab_size()
        sequences = [[rng.randrange(size + 3) for _ in range(rng.randrange(60))] for _ in range(400)]
        for ids, answer in zip(sequences, run_tool([folder], sequences)):
            known = [i for i in ids if reference.id_to_token(i) is not None]
            self.assertEqual(answer["decoded"], reference.decode(known, skip_special_tokens=False))
            self.assertEqual(answer["skipped"], reference.decode(known, skip_special_tokens=True))
            self.assertEqual(answer["streamed"], answer["decoded"])
            self.assertEqual(answer["streamed_skipped"], answer["skipped"])

    def test_demo(self):
        folder = corpus.ROOT / "models" / "demo"
        self.compare(str(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), prefix=[0])

    def train(self, pre_tokenizer, normalizer=None, ignore_merges=False):
        t = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
        t.pre_tokenizer = pre_tokenizer
        if normalizer:
            t.normalizer = normalizer
        t.decoder = decoders.ByteLevel()
        t.train_from_iterator(corpus.texts(600, seed=3), trainers.BpeTrainer(
            vocab_size=1500, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]))
        t.add_tokens([AddedToken("<tool>", lstrip=True), AddedToken("[INST]", rstrip=True), AddedToken("Hello", single_word=True),
                      AddedToken("世界", normalized=False), AddedToken("naïve")])
        return t

    def check(self, t):
        with tempfile.TemporaryDirectory() as folder:
            t.save(str(pathlib.Path(folder) / "tokenizer.json"))
            self.compare(folder, t)

    @staticmethod
    def words(pattern):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    def test_gpt2(self):
        self.check(self.train(pre_tokenizers.ByteLevel(add_prefix_space=False)))

    def test_gpt2_with_prefix_space_and_template(self):
        t = self.train(pre_tokenizers.ByteLevel(add_prefix_space=True))
        t.post_processor = processors.TemplateProcessing(single="<s> $A <|im_end|>", special_tokens=[("<s>", t.token_to_id("<s>")), ("<|im_end|>", t.token_to_id("<|im_end|>"))])
        self.check(t)

    def test_llama3(self):
        t = self.train(self.words(LLAMA3), ignore_merges=True)
        t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))])])
        self.check(t)

    def test_qwen2(self):
        self.check(self.train(self.words(QWEN2), normalizers.NFC()))

    def test_other_steps(self):
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        for steps in ([pre_tokenizers.Digits(individual_digits=True)], [pre_tokenizers.Digits(individual_digits=False)],
                      [pre_tokenizers.WhitespaceSplit()], [pre_tokenizers.Split(" ", "merged_with_next")],
                      [pre_tokenizers.Split(Regex(r"[,.!?]"), "merged_with_previous")], [pre_tokenizers.Split(Regex(r"\d"), "contiguous")],
                      [pre_tokenizers.Split(Regex(r"\p{L}+"), "removed", invert=True)]):
            with self.subTest(str(steps)):
                self.check(self.train(pre_tokenizers.Sequence([*steps, byte_level])))
        for normalizer in (normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(), normalizers.Lowercase(),
                           normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])):
            with self.subTest(str(normalizer)):
                self.check(self.train(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer))


if __name__ == "__main__":
    unittest.main()
