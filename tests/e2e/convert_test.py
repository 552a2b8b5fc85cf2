"""models/convert.py: a state_dict of the published code, as training programs save it, becomes a folder that the server serves
with the published logits; random checkpoints of odd shapes are served too; what does not fit is named."""
import json
import pathlib
import sys
import tempfile
import unittest

import numpy as np

import grpc_client
from grpc_client import pb
from server_process import ROOT, ServerProcess

sys.path.insert(0, str(ROOT / "models"))
import convert  # noqa: E402

REFERENCE = ROOT / "tests" / "reference" / "data"
DEMO = ROOT / "models" / "demo"


def floats(tensor):
    return tensor.to("F32").values.astype(np.float64)


def state_dict_of(folder):
    """The reference model's weights under the names that a training program's wrappers make, with a buffer and a scalar."""
    names = {"embed.weight": "module._orig_mod.model.tok_emb.weight", "norm.weight": "module._orig_mod.model.ln_f.weight",
             "norm.bias": "module._orig_mod.model.ln_f.bias", "lm_head.weight": "module._orig_mod.head.weight"}
    state = {}
    for name, tensor in convert.read_safetensors(folder / "model.safetensors").items():
        if name.endswith("gamma_bias"):
            tensor = tensor.reshaped([])
        state[names.get(name, f"module._orig_mod.model.blocks.{name.removeprefix('layers.')}")] = floats(tensor).astype(np.float32)
    state["module._orig_mod.model.blocks.0.mixer.rope.inv_freq"] = np.ones(4, np.float32)
    tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    if tied:
        state["module._orig_mod.head.weight"] = state["module._orig_mod.model.tok_emb.weight"]
    return state


class ConvertTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def serve(self, model, *flags):
        server = ServerProcess(*flags, model=model)
        self.addCleanup(server.stop)
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)
        return stub

    def best_logprobs(self, stub, ids):
        """{token: logprob} of the 20 best next tokens."""
        replies = list(stub.Generate(pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids), sampling=pb.Sampling(
            max_tokens=1, temperature=0, logprobs=20, ignore_eos=True))))
        delta = next(r.delta for r in replies if r.WhichOneof("event") == "delta" and r.delta.logprobs)
        return {top.token_id: top.logprob for top in delta.logprobs[0].top}

    def test_the_published_logits(self):
        for name in ("gqa", "one_head", "no_rope"):
            with self.subTest(name):
                source = REFERENCE / name
                config = json.loads((source / "config.json").read_text())
                np.savez(self.folder / "state.npz", **state_dict_of(source))
                flags = [] if config["use_forward_rope"] else ["--no_rope"]
                for key in ("gamma_max", "layer_norm_eps", "rope_theta", "max_position_embeddings"):
                    flags += [f"--{key}", config[key]]
                made = convert.run(["state_dict", self.folder / "state.npz", self.folder / name, "--num_attention_heads",
                                    config["num_attention_heads"], *flags])
                self.assertEqual({key: made[key] for key in config}, config)
                stub = self.serve(self.folder / name)
                expected = convert.read_safetensors(source / "expected.safetensors")
                ids, logits = expected["input_ids"].values[0], floats(expected["logits"])[0]
                for end in (1, 17, len(ids)):
                    right = logits[end - 1] - np.logaddexp.reduce(logits[end - 1])
                    best = self.best_logprobs(stub, [int(i) for i in ids[:end]])
                    self.assertEqual(len(best), 20)
                    for token, logprob in best.items():
                        self.assertAlmostEqual(logprob, right[token], delta=2e-4)

    def test_formats_keep_what_they_can(self):
        source = REFERENCE / "gqa" / "model.safetensors"  # exact in bf16
        for dtype in ("BF16", "F32", "F16"):
            convert.run(["state_dict", source, self.folder / dtype, "--num_attention_heads", 8, "--dtype", dtype])
        before, after = convert.read_safetensors(source), convert.read_safetensors(self.folder / "BF16" / "model.safetensors")
        self.assertEqual(set(before), set(after))
        for name, tensor in before.items():
            self.assertTrue(np.array_equal(floats(tensor), floats(after[name])), name)
        # Rounded to nearest, ties to even: 1 + 2^-8 lies in the middle of two bf16 numbers.
        values = convert.Tensor(np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)).to("BF16")
        self.assertEqual(list(floats(values)), [1, 1 + 4 * 2**-8, 1 + 2 * 2**-8])

    def test_what_torch_saved(self):
        """A state_dict alone or beside an optimizer's, float32 and bf16: the same folder as from the same values in an .npz."""
        try:
            import torch
        except ImportError:
            self.skipTest("PyTorch is not installed")
        state = state_dict_of(REFERENCE / "gqa")
        np.savez(self.folder / "state.npz", **state)
        values = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        optimizer = {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-3}]}
        saved = {"state_dict.pt": values, "trainer.pth": {"model": values, "optimizer": optimizer, "step": 7},
                 "half.bin": {name: value.to(torch.bfloat16) for name, value in values.items()},  # exact, as the reference's are
                 "parameters.pt": {name: torch.nn.Parameter(value) for name, value in values.items()}}
        for name, content in saved.items():
            torch.save(content, self.folder / name)
        weights = set()
        for name in ("state.npz", *saved):
            convert.run(["state_dict", self.folder / name, self.folder / "made" / name, "--num_attention_heads", 8, "--dtype", "BF16"])
            weights.add((self.folder / "made" / name / "model.safetensors").read_bytes())
        self.assertEqual(len(weights), 1)

    def test_what_does_not_fit_is_named(self):
        state = state_dict_of(REFERENCE / "gqa")
        layer = "module._orig_mod.model.blocks.1.mixer."
        cases = [
            ({layer + "q_proj.weight": None}, [], "layers.1.mixer.q_proj.weight"),
            ({layer + "q_proj.weight": np.zeros((2, 2), np.float32)}, [], "shape"),
            ({"mystery.weight": np.zeros(2, np.float32)}, [], "--rename mystery.weight=NAME"),
            ({"module._orig_mod.model.blocks.7.ln.weight": np.zeros(128, np.float32)}, [], "layers.3"),
            ({layer + "conv.weight": np.zeros(2, np.float32)}, [], "layers.1.mixer.conv.weight"),
            ({}, ["--num_attention_heads", 7], "--num_attention_heads"),
        ]
        for change, flags, message in cases:
            with self.subTest(message):
                changed = {name: value for name, value in {**state, **change}.items() if value is not None}
                np.savez(self.folder / "state.npz", **changed)
                with self.assertRaises(convert.Problem) as caught:
                    convert.run(["state_dict", self.folder / "state.npz", self.folder / "out", "--num_attention_heads", 8, *flags])
                self.assertIn(message, str(caught.exception))
        np.savez(self.folder / "state.npz", **{**state, "mystery.weight": np.zeros(2, np.float32)})
        convert.run(["state_dict", self.folder / "state.npz", self.folder / "out", "--num_attention_heads", 8,
                     "--rename", "mystery.weight="])

    def test_random_checkpoints_of_odd_shapes_are_served(self):
        shapes = [
            ["--hidden_size", 48, "--num_hidden_layers", 1, "--num_attention_heads", 1, "--vocab_size", 7, "--dtype", "F32"],
            ["--hidden_size", 120, "--num_hidden_layers", 3, "--num_attention_heads", 6, "--num_key_value_heads", 2,
             "--vocab_size", 33, "--tie_word_embeddings", "--dtype", "F16", "--gamma_max", 0.5],
            ["--hidden_size", 128, "--num_hidden_layers", 2, "--tokenizer", DEMO],
        ]
        for i, shape in enumerate(shapes):
            with self.subTest(shape):
                config = convert.run(["random", self.folder / str(i), *shape])
                stub = self.serve(self.folder / str(i))
                self.assertEqual(stub.GetModelInfo(pb.GetModelInfoRequest()).vocab_size, config["vocab_size"])
                best = self.best_logprobs(stub, [1, 2, 3])
                self.assertEqual(len(best), min(20, config["vocab_size"]))
        again = self.folder / "again"
        convert.run(["random", again, *shapes[0]])
        self.assertEqual((again / "model.safetensors").read_bytes(), (self.folder / "0" / "model.safetensors").read_bytes())


if __name__ == "__main__":
    unittest.main()
