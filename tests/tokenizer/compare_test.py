"""The tokenizer against Hugging Face's `tokenizers`: the same ids and the same text."""
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unicodedata
import unittest

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

import corpus
import published
import unicode_tables

TOOL = os.environ["SESSA_TOKENIZE"]
def run_tool(arguments, values):
    lines = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([TOOL, *arguments], input=lines, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


class TokenizerTest(unittest.TestCase):
    def compare(self, folder, reference, prefix=(), texts=None):
        """Ids, text and streamed text of hostile texts and of ids at random."""
        texts = [t.encode("utf-8", "replace").decode() for t in texts or corpus.hostile()]
        answers = run_tool([str(folder)], texts)
        ids = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
        special = [list(prefix) + e.ids for e in reference.encode_batch(texts)]
        decoded = reference.decode_batch(ids, skip_special_tokens=False)
        skipped = reference.decode_batch(ids, skip_special_tokens=True)
        for text, answer, *expected in zip(texts, answers, ids, special, decoded, skipped, strict=True):
            self.assertEqual([answer.get(key) for key in ("ids", "special", "decoded", "skipped")], expected, repr(text[:200]))
            self.assertEqual((answer["streamed"], answer["streamed_skipped"]), (answer["decoded"], answer["skipped"]), repr(text[:200]))
        rng = random.Random(2)
        size = reference.get_vocab_size()
        known = [i for i in range(size) if reference.id_to_token(i) is not None]
        sequences = [[rng.choice(known) for _ in range(rng.randrange(60))] for _ in range(100)]
        sequences += [[rng.choice(known[:400]) for _ in range(rng.randrange(60))] for _ in range(50)]  # many of bytes
        decoded = reference.decode_batch(sequences, skip_special_tokens=False)
        skipped = reference.decode_batch(sequences, skip_special_tokens=True)
        # Of a run of byte tokens that is ill-formed Hugging Face gives up the complete characters too, all at once: a
        # stream cannot take back what it has shown.
        runs = '"ByteFallback"' in reference.to_str()
        for sequence, answer, *expected in zip(sequences, run_tool([str(folder)], sequences), decoded, skipped, strict=True):
            if not (runs and "\ufffd" in expected[0]):
                self.assertEqual([answer["decoded"], answer["skipped"]], expected, sequence)
            self.assertEqual((answer["streamed"], answer["streamed_skipped"]), (answer["decoded"], answer["skipped"]))

    def test_demo(self):
        folder = corpus.ROOT / "models" / "demo"
        reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.compare(folder, reference, prefix=[0], texts=corpus.texts())
        outside = [[rng % 1030 - 3 for rng in range(7 * k, 7 * k + 20)] for k in range(200)]  # ids without a token
        for sequence, answer in zip(outside, run_tool([str(folder)], outside), strict=True):
            self.assertEqual(answer["decoded"], reference.decode([i for i in sequence if 0 <= i < 1024], skip_special_tokens=False))

    def test_published(self):
        folders = published.folders()
        if not folders:
            self.skipTest("no published tokenizers: tests/tokenizer/published.py makes them, ./dev setup calls it")
        for folder in folders:
            with self.subTest(folder.name):
                self.compare(folder, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), texts=corpus.hostile(120))

    def test_smollm2(self):
        """models/from_gguf.py's tokenizer.json is what the published one says, and but for digits what transformers makes of the file."""
        folder = corpus.ROOT / "build" / "smollm2"
        if not folder.exists():
            self.skipTest("no build/smollm2: ./dev setup makes it where its package can be had")
        reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.compare(folder, reference, texts=corpus.hostile(120))
        ours = json.loads(reference.to_str())
        gguf = {"tokenizer_type": "gpt2", "tokens": list(ours["model"]["vocab"]), "merges": [" ".join(m) for m in ours["model"]["merges"]],
                "token_type": [3 if reference.get_added_tokens_decoder().get(i) else 1 for i in range(reference.get_vocab_size())]}
        theirs = json.loads(convert_gguf_tokenizer("llama", gguf)[0].to_str())
        for key in ("added_tokens", "normalizer", "decoder"):
            self.assertEqual(ours[key], theirs[key])
        for key in ("vocab", "merges", "unk_token", "byte_fallback", "ignore_merges"):
            self.assertEqual(ours["model"][key], theirs["model"][key], key)
        digits, rest = ours["pre_tokenizer"]["pretokenizers"]  # transformers' reader of GGUFs leaves them out
        self.assertEqual((digits, rest), ({"type": "Digits", "individual_digits": True}, theirs["pre_tokenizer"]))

    def test_unicode_tables(self):
        if unicodedata.unidata_version != unicode_tables.UNICODE:
            self.skipTest(f"this Python has Unicode {unicodedata.unidata_version}")
        self.assertEqual(unicode_tables.source(), unicode_tables.FILE.read_text(encoding="utf-8"), "unicode_tables.py makes them anew")

    def test_every_character(self):
        """All of Unicode, through expressions that drop some of it and through normalizers."""
        texts = ["".join(unicode_tables.ALL[i:i + 2000]) for i in range(0, len(unicode_tables.ALL), 2000)]
        t = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
        t.decoder = decoders.ByteLevel()
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

        def check():
            with tempfile.TemporaryDirectory() as folder:
                t.save(str(pathlib.Path(folder) / "tokenizer.json"))
                answers = [answer["decoded"] for answer in run_tool([folder], texts)]
            expected = t.decode_batch([e.ids for e in t.encode_batch_fast(texts)], skip_special_tokens=False)
            for text, answer, wanted in zip(texts, answers, expected, strict=True):
                self.assertEqual(answer, wanted, f"from U+{ord(text[0]):04X}")

        for pattern in (r"\p{Lu}|\p{N}|\p{P}", r"\p{Ll}|\p{M}|\p{S}", r"\w", r"\s|\p{Lo}|\p{Lm}", r"\p{Han}|\p{C}"):
            with self.subTest(pattern):
                t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "removed"), bytes_])
                check()
        with self.subTest("scripts"):  # a space is put where it cuts
            by_script = texts
            rng = random.Random(5)
            shuffled = "".join(rng.sample(unicode_tables.ALL, len(unicode_tables.ALL)))
            texts = [*texts, *(shuffled[i:i + 2000] for i in range(0, len(shuffled), 2000))]
            t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)])
            check()
            texts = by_script
        t.pre_tokenizer = bytes_
        for normalizer in (normalizers.NFC(), normalizers.NFKD(), normalizers.BertNormalizer(), normalizers.StripAccents()):
            with self.subTest(str(normalizer)):
                t.normalizer = normalizer
                check()

    ADDED = [AddedToken("<tool>", lstrip=True), AddedToken("[INST]", rstrip=True), AddedToken("Hello", single_word=True),
             AddedToken("世界", normalized=False), AddedToken("naïve")]
    SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "[UNK]"]

    def check(self, t, texts=None):
        t.add_tokens(self.ADDED)
        with tempfile.TemporaryDirectory() as folder:
            t.save(str(pathlib.Path(folder) / "tokenizer.json"))
            self.compare(folder, t, texts=texts)

    def train(self, t, trainer):
        t.train_from_iterator(corpus.hostile(200, seed=3, long=False), trainer)
        return t

    def byte_level(self):
        t = tokenizers.Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        t.decoder = decoders.ByteLevel()
        return self.train(t, trainers.BpeTrainer(vocab_size=1200, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                 special_tokens=self.SPECIAL))

    def test_post_processors(self):
        t = self.byte_level()
        s, end = ("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))
        template = processors.TemplateProcessing(single="<s> $A </s> </s>", special_tokens=[s, end])
        for processor in (template, processors.BertProcessing(end, s), processors.RobertaProcessing(end, s),
                          processors.Sequence([processors.ByteLevel(trim_offsets=False), template])):
            with self.subTest(str(processor)):
                t.post_processor = processor
                self.check(t, corpus.hostile(50, long=False))

    def test_steps_of_byte_level_words(self):
        t = self.byte_level()
        texts = corpus.hostile(50, long=False)
        plain = t.pre_tokenizer
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        for steps in ([pre_tokenizers.Digits(individual_digits=True)], [pre_tokenizers.Digits(individual_digits=False)],
                      [pre_tokenizers.WhitespaceSplit()], [pre_tokenizers.Split(" ", "merged_with_next")],
                      [pre_tokenizers.Split(Regex(r"[,.!?]"), "merged_with_previous")], [pre_tokenizers.Split(Regex(r"\d"), "contiguous")],
                      [pre_tokenizers.Split(Regex(r"\p{L}+"), "removed", invert=True)], [pre_tokenizers.Punctuation("merged_with_next")],
                      [pre_tokenizers.Whitespace()], [pre_tokenizers.CharDelimiterSplit("-")], [pre_tokenizers.BertPreTokenizer()], [pre_tokenizers.FixedLength(length=3)],
                      [pre_tokenizers.UnicodeScripts()], [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.UnicodeScripts()],
                      [pre_tokenizers.Split(Regex(r"[\p{Han}\p{Hiragana}]+|\w+|[[:punct:]]+|[[:alpha:]\s]{2}"), "isolated")]):
            with self.subTest(str(steps)):
                t.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
                self.check(t, texts)
        t.pre_tokenizer = plain
        for normalizer in (normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD(), normalizers.Lowercase(),
                           normalizers.Sequence([normalizers.NFC(), normalizers.Strip()]), normalizers.Nmt(), normalizers.StripAccents(),
                           normalizers.BertNormalizer(strip_accents=True, lowercase=False),
                           normalizers.Sequence([normalizers.Replace(Regex(r"\s{2,}|\d"), "~"), normalizers.Prepend("_")])):
            with self.subTest(str(normalizer)):
                t.normalizer = normalizer
                self.check(t, texts)

    def test_other_models(self):
        """Small ones with the options that the published have not."""
        unigram = tokenizers.Tokenizer(models.Unigram())
        unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first")
        self.train(unigram, trainers.UnigramTrainer(vocab_size=4000, show_progress=False, special_tokens=[*self.SPECIAL, *(f"<0x{b:02X}>" for b in range(256))], unk_token="[UNK]"))
        self.check(unigram)
        fallback = json.loads(unigram.to_str())
        fallback["model"]["byte_fallback"] = True
        fallback["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, fallback["decoder"]]}
        self.check(tokenizers.Tokenizer.from_str(json.dumps(fallback)))

        pieces = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12))
        pieces.normalizer, pieces.pre_tokenizer, pieces.decoder = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=True)
        self.check(self.train(pieces, trainers.WordPieceTrainer(vocab_size=900, show_progress=False, special_tokens=self.SPECIAL)))

        words = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # and no decoder: spaces between words
        self.check(self.train(words, trainers.WordLevelTrainer(vocab_size=300, show_progress=False, special_tokens=self.SPECIAL)))

        for fuse in (False, True):  # GPT-1's style
            ends = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>", fuse_unk=fuse))
            ends.pre_tokenizer, ends.decoder = pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder()
            self.check(self.train(ends, trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=self.SPECIAL, end_of_word_suffix="</w>", limit_alphabet=60)))
        for decoder in (decoders.CTC(), decoders.CTC(pad_token="[UNK]", word_delimiter_token="a", cleanup=False),
                        decoders.Sequence([decoders.CTC(word_delimiter_token="e"), decoders.Replace("o", "0"), decoders.Fuse(), decoders.Strip(" ", 1, 0)])):
            with self.subTest(decoder.__getstate__()):
                words.decoder = decoder
                self.check(words)
        inside = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
        inside.pre_tokenizer, inside.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece(prefix="##", cleanup=False)
        self.check(self.train(inside, trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=self.SPECIAL, continuing_subword_prefix="##", limit_alphabet=60)))


if __name__ == "__main__":
    unittest.main()
