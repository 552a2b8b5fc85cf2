"""config.json as the transformers package reads it: the same sizes, biases, windows, ends and rotary frequencies for each
model_type, with each key left out in turn, null, or changed, in the dialects of its versions 4 and 5."""
import json
import os
import pathlib
import subprocess
import tempfile
import types
import unittest

import numpy
import transformers
from transformers import modeling_rope_utils

transformers.logging.set_verbosity_error()

COMMON = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, "tie_word_embeddings": True, "bos_token_id": 1,
          "eos_token_id": [2, 5], "hidden_act": "silu", "use_cache": True, "initializer_range": 0.02}
ATTENTION = COMMON | {"intermediate_size": 144, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24,
                      "rms_norm_eps": 1e-3, "max_position_embeddings": 512, "attention_dropout": 0.0}
QWEN = ATTENTION | {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
BASE = {
    "llama": ATTENTION | {"attention_bias": True, "mlp_bias": True, "pretraining_tp": 1},
    "mistral": ATTENTION | {"sliding_window": 24},
    "qwen2": QWEN,
    "qwen3": QWEN | {"attention_bias": True},
    "mamba2": COMMON | {"num_heads": 8, "head_dim": 16, "state_size": 32, "n_groups": 2, "conv_kernel": 3, "expand": 2,
                        "layer_norm_epsilon": 1e-3, "use_bias": True, "use_conv_bias": False, "chunk_size": 16,
                        "time_step_limit": [0.0, float("inf")], "norm_before_gate": True, "rms_norm": True},
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
ROPES = [
    ("default", {}), ("linear", {"factor": 3}), ("llama3", LLAMA3), ("llama3", LLAMA3 | {"factor": 32.0, "high_freq_factor": 7}),
    ("yarn", YARN), ("yarn", {"factor": 4.0}), ("yarn", YARN | {"beta_fast": 8.5, "beta_slow": 0.5, "truncate": False}),
    ("yarn", YARN | {"attention_factor": 1.25}), ("yarn", YARN | {"factor": 1.0}),
    ("yarn", YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}), ("yarn", YARN | {"mscale": 0.7}),
    ("yarn", YARN | {"beta_fast": None, "beta_slow": None, "attention_factor": None}),
]


class Array(numpy.ndarray):
    """What the package's rotary functions ask of a tensor, so that they run without torch."""

    def to(self, device=None, dtype=None):
        return self if dtype is None else self.astype(dtype)


def arange(*arguments, dtype=numpy.int64):
    return numpy.arange(*arguments, dtype=dtype).view(Array)


def expected_rope(config):
    modeling_rope_utils.torch = types.SimpleNamespace(
        arange=arange, where=numpy.where, clamp=numpy.clip, int64=numpy.int64, float=numpy.float32, float32=numpy.float32)
    kind = config.rope_parameters["rope_type"]
    if kind == "default":  # has a function in each model's file alone, which needs torch
        config.rope_parameters["factor"] = 1.0
        kind = "linear"
    return modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind](config)


def expected(folder):
    """What config_tool.cc prints, from the package's own class."""
    c = transformers.AutoConfig.from_pretrained(folder)
    ends = c.eos_token_id if isinstance(c.eos_token_id, list) else [] if c.eos_token_id is None else [c.eos_token_id]
    out = {"vocab_size": c.vocab_size, "hidden_size": c.hidden_size, "num_layers": c.num_hidden_layers, "eos_token_ids": ends,
           "tie_word_embeddings": c.tie_word_embeddings, "bos_token_id": -1 if c.bos_token_id is None else c.bos_token_id}
    if c.model_type == "mamba2":
        return out | {"norm_eps": c.layer_norm_epsilon, "mixer_norm_eps": c.layer_norm_epsilon,
                      "sizes": [c.num_heads, c.head_dim, c.state_size, c.n_groups, c.conv_kernel],
                      "biases": [c.use_bias, c.use_conv_bias]}
    frequencies, scale = expected_rope(c)
    if c.model_type == "qwen2":  # its layers' own constants
        biases = [True, False, False]
    else:
        attention = getattr(c, "attention_bias", False)
        biases = [attention, attention, getattr(c, "mlp_bias", False)]
    window = getattr(c, "sliding_window", None) or 0
    kinds = getattr(c, "layer_types", None) or ["sliding_attention"] * c.num_hidden_layers  # mistral: all of them
    return out | {"norm_eps": c.rms_norm_eps, "num_heads": c.num_attention_heads, "num_kv_heads": c.num_key_value_heads,
                  "head_dim": getattr(c, "head_dim", c.hidden_size // c.num_attention_heads), "inv_freq": frequencies.tolist(),
                  "rope_scale": scale, "max_position_embeddings": c.max_position_embeddings,
                  "intermediate_size": c.intermediate_size, "biases": biases, "qk_norm": c.model_type == "qwen3",
                  "windows": [window if kind == "sliding_attention" else 0 for kind in kinds]}


def variants(model_type):
    """(what was done, config) of every kind."""
    base = {"model_type": model_type} | BASE[model_type]
    yield "all keys", base
    for key in BASE[model_type]:
        # Sizes that depend on one another are left out together, as eight heads of keys for four fit no model.
        together = {"num_attention_heads": {"num_key_value_heads"}, "num_key_value_heads": {"num_attention_heads"},
                    "num_heads": {"head_dim", "hidden_size", "expand"}, "head_dim": {"num_heads", "hidden_size"}
                    if model_type == "mamba2" else set(), "hidden_size": {"num_heads", "head_dim"} if model_type == "mamba2" else set()}
        out = {key} | together.get(key, set())
        yield f"without {sorted(out)}", {k: v for k, v in base.items() if k not in out}
    yield "only model_type", {"model_type": model_type}
    for key in ("eos_token_id", "bos_token_id"):
        yield f"{key} null", base | {key: None}
    yield "one end", base | {"eos_token_id": 7}
    if model_type == "mamba2":
        return
    if model_type != "mistral":  # version 4 takes it as the others do, 5 refuses it
        yield "num_key_value_heads null", base | {"num_key_value_heads": None}
    if model_type != "qwen3":
        yield "head_dim left out of an uneven width", {k: v for k, v in base.items() if k != "head_dim"} | {"hidden_size": 48}
    if model_type in ("llama", "mistral"):
        yield "head_dim null", base | {"head_dim": None}
    if model_type != "llama":
        yield "sliding_window null", base | {"sliding_window": None}
    if model_type.startswith("qwen"):
        yield "use_sliding_window false", base | {"use_sliding_window": False}
        yield "layer_types", base | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
        yield "old layer_types", base | {"layer_types": ["attention", "full_attention", "attention"]}
    for kind, fields in ROPES:
        for theta in (10000.0, 500000, 1e6):
            yield f"5: {kind} {fields}", base | {"dtype": "bfloat16", "rope_parameters": fields | {"rope_type": kind, "rope_theta": theta}}
            if kind == "llama3":
                yield f"4: {kind}", base | {"rope_theta": theta, "rope_scaling": fields | {"rope_type": kind}}
        for name in ("type", "rope_type"):
            yield f"4: {name} {kind} {fields}", base | {"torch_dtype": "float16", "rope_theta": 3e5, "rope_scaling": fields | {name: kind}}
        yield f"no theta: {kind}", base | {"rope_scaling": fields | {"rope_type": kind}}
        yield f"both names: {kind}", base | {"rope_scaling": fields | {"rope_type": kind, "type": "dynamic"}}
        yield f"both dialects: {kind}", base | {"rope_scaling": fields | {"rope_type": kind}, "rope_parameters": {"rope_type": "linear", "factor": 7.0, "rope_theta": 77.0}}
        yield f"outer length: {kind}", base | {"rope_scaling": fields | {"rope_type": kind}, "original_max_position_embeddings": 96}
    yield "theta alone", base | {"rope_theta": 5e5, "rope_scaling": None}
    yield "theta in rope_parameters", base | {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}}
    yield "no scaling", base | {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 777.0}}


class TransformersTest(unittest.TestCase):
    def compare(self, name, ours, theirs):
        self.assertNotIn("error", ours, name)
        self.assertEqual(ours.keys(), theirs.keys(), name)
        for key, value in theirs.items():
            if key in ("inv_freq", "rope_scale", "norm_eps", "mixer_norm_eps"):
                numpy.testing.assert_allclose(ours[key], value, rtol=1e-6, err_msg=f"{name}: {key}")
            else:
                self.assertEqual(ours[key], value, f"{name}: {key}")

    def test_families(self):
        with tempfile.TemporaryDirectory() as parent:
            cases = []
            for model_type in BASE:
                for what, config in variants(model_type):
                    folder = pathlib.Path(parent, str(len(cases)))
                    folder.mkdir()
                    (folder / "config.json").write_text(json.dumps(config))
                    cases.append((f"{model_type}, {what}", folder))
            paths = "".join(f"{folder}/config.json\n" for _, folder in cases)
            done = subprocess.run([os.environ["SESSA_PRINT_CONFIG"]], input=paths, capture_output=True, text=True, check=True)
            answers = [json.loads(line) for line in done.stdout.splitlines()]
            self.assertEqual(len(answers), len(cases))
            self.assertGreater(len(cases), 600)
            for (name, folder), ours in zip(cases, answers):
                with self.subTest(name):
                    self.compare(name, ours, expected(folder))

    def test_saved_by_the_package(self):
        """What the package itself writes, with nothing but its defaults."""
        with tempfile.TemporaryDirectory() as parent:
            for model_type in BASE:
                folder = pathlib.Path(parent, model_type)
                transformers.AutoConfig.for_model(model_type).save_pretrained(folder)
                done = subprocess.run([os.environ["SESSA_PRINT_CONFIG"]], input=f"{folder}/config.json\n", capture_output=True, text=True, check=True)
                self.compare(model_type, json.loads(done.stdout), expected(folder))


if __name__ == "__main__":
    unittest.main()
