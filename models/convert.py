#!/usr/bin/env python3
"""Makes checkpoint folders that sessa-server takes: of a trained model's state_dict, or with random weights.

    convert.py state_dict FILE DIR --num_attention_heads N [--tokenizer DIR] ...
    convert.py random DIR [--hidden_size 768] [--num_hidden_layers 12] ... [--tokenizer DIR]

FILE is .safetensors, .npz, or what torch.save wrote (.pt, .pth, .bin; this alone needs PyTorch: pip install torch). What the
weights do not say is asked for or has the published defaults: the number of heads (1 where there is no out_proj), gamma_max,
rope_theta, layer_norm_eps, whether there is rope, max_position_embeddings, the ids of bos and eos.

The mapping. A layer of the published code keeps its names:

    layers.N.{ln.weight, ln.bias, W_in.weight, W_in.bias, W_out.weight, W_out.bias}
    layers.N.mixer.{q_proj, k_proj, v_proj, proj_fb}.{weight, bias}, layers.N.mixer.out_proj.weight (with several heads)
    layers.N.mixer.{gamma_bias, gamma_ctx.weight}

Around the layers training programs differ, so that the names of OUTSIDE below are taken; wrappers are left out (module. of
DistributedDataParallel, _orig_mod. of torch.compile, model. and the like), a layer list is found by what its layers hold, and
buffers that are computed (rope's angles, masks) are dropped. --rename OLD=NEW maps any other name before that; what is still
not known then, is missing or has another shape than the rest asks for, is an error that names it. An lm_head that is the
embedding is tied. The folder's files are documented in docs/architecture.md.
"""
import argparse
import json
import pathlib
import re
import shutil
import sys

import numpy as np

WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "decoder.", "transformer.", "net.")
OUTSIDE = {
    "embed.weight": ("embed", "embedding", "embeddings", "tok_emb", "token_embedding", "embed_tokens", "wte"),
    "norm.weight": ("norm", "ln_f", "norm_f", "final_norm", "ln_out"),
    "norm.bias": ("norm", "ln_f", "norm_f", "final_norm", "ln_out"),
    "lm_head.weight": ("lm_head", "head", "output", "unembed"),
}
BUFFERS = re.compile(r"(^|\.)(inv_freq|(rope|rotary)[\w.]*|(cos|sin)(_cached)?|(causal_)?mask)$")
LAYER = re.compile(r"^(?:\w+\.)*?(\d+)\.((?:ln|W_in|W_out|mixer)\..+)$")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json",
                   "special_tokens_map.json", "added_tokens.json")
# Of safetensors. numpy has no bf16: its values stay what they are, 16 bits.
FORMATS = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64, "I64": np.int64}
TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Problem(Exception):
    """Something is wrong with what was given: a line for whoever called."""


class Tensor:
    """Values in memory or in a file, and the name that safetensors has for their type."""

    def __init__(self, values, dtype=None):
        self.values = values
        self.dtype = dtype or {"float32": "F32", "float16": "F16", "float64": "F64"}.get(values.dtype.name)
        self.shape = list(values.shape)

    def reshaped(self, shape):
        return Tensor(self.values.reshape(shape), self.dtype)

    def to(self, dtype):
        """In F32, F16 or BF16, rounded to nearest, ties to even."""
        if self.dtype == dtype:
            return self
        values = self.values
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if dtype != "BF16":
            return Tensor(values.astype(FORMATS[dtype]), dtype)
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return Tensor(((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16), "BF16")

    def same_as(self, other):
        return self.dtype == other.dtype and self.shape == other.shape and np.array_equal(self.values, other.values)


def read_safetensors(path):
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in FORMATS:
            if BUFFERS.search(name):
                continue
            raise Problem(f"{path}: {name}: {entry['dtype']} is not taken")
        begin, end = entry["data_offsets"]
        dtype = np.dtype(FORMATS[entry["dtype"]])
        values = np.memmap(path, dtype, "r", 8 + size + begin, ((end - begin) // dtype.itemsize,))
        tensors[name] = Tensor(values, entry["dtype"]).reshaped(entry["shape"])
    return tensors


def write_safetensors(path, dtype, shapes, make):
    """`make(name)` is asked for one tensor at a time, so that a large model need not be in memory at once."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + int(np.prod(shape)) * np.dtype(FORMATS[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            file.write(np.ascontiguousarray(make(name).reshaped(shape).to(dtype).values).tobytes())


def read_torch(path):
    try:
        import torch
    except ImportError:
        raise Problem(f"{path}: reading what torch.save wrote needs PyTorch (pip install torch); .safetensors and .npz do "
                      "not") from None
    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):  # beside an optimizer's, as training programs save them
        if isinstance(state.get(key), dict):
            state = state[key]
            break

    def convert(value):
        value = value.detach().contiguous()
        return Tensor(value.view(torch.uint16).numpy(), "BF16") if value.dtype == torch.bfloat16 else Tensor(value.numpy())

    return {name: convert(value) for name, value in state.items() if torch.is_tensor(value)}


def read_state_dict(path):
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: Tensor(file[name]) for name in file.files}
    return read_torch(path)


def checkpoint_name(name):
    """What a checkpoint calls the tensor `name` of a state_dict; None of a buffer."""
    if BUFFERS.search(name):
        return None
    layer = LAYER.match(name)
    if layer:
        return f"layers.{layer[1]}.{layer[2]}"
    short = name
    while True:
        stripped = next((short[len(wrapper):] for wrapper in WRAPPERS if short.startswith(wrapper)), short)
        if stripped == short:
            break
        short = stripped
    for target, stems in OUTSIDE.items():
        if any(short == f"{stem}.{target.rsplit('.', 1)[1]}" for stem in stems):
            return target
    raise Problem(f"{name}: no name of the published code; --rename {name}=NAME says what it is, --rename {name}= leaves it out")


def map_names(state, renames):
    tensors, source = {}, {}
    for name, tensor in state.items():
        if renames.get(name) == "":
            continue
        target = checkpoint_name(renames.get(name, name))
        if target is None:
            continue
        if target in tensors:
            raise Problem(f"{name} and {source[target]} both are {target}")
        tensors[target], source[target] = tensor, name
    return tensors


def layer_shapes(config):
    """name -> shape of a layer's tensors."""
    D, H = config["hidden_size"], config["num_attention_heads"]
    kv = config["num_key_value_heads"] * (D // H)
    shapes = {"ln.weight": [D], "ln.bias": [D], "mixer.gamma_bias": [1], "mixer.gamma_ctx.weight": [1, D]}
    for name, rows in (("W_in", 2 * D), ("mixer.q_proj", D), ("mixer.k_proj", kv), ("mixer.v_proj", kv), ("mixer.proj_fb", 2 * D),
                       ("W_out", D)):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [rows, D], [rows]
    if H > 1:
        shapes["mixer.out_proj.weight"] = [D, D]
    return shapes


def all_shapes(config):
    D, V = config["hidden_size"], config["vocab_size"]
    shapes = {"embed.weight": [V, D]}
    for n in range(config["num_hidden_layers"]):
        shapes.update({f"layers.{n}.{name}": shape for name, shape in layer_shapes(config).items()})
    shapes.update({"norm.weight": [D], "norm.bias": [D]})
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [V, D]
    return shapes


def make_config(hidden, layers, heads, kv_heads, vocab, tie, dtype, options):
    for name, value, by in (("hidden_size", hidden, heads), ("num_attention_heads", heads, kv_heads)):
        if by < 1 or value % by:
            raise Problem(f"{name} {value} is no multiple of {by}")
    config = {
        "model_type": "sessa", "architectures": ["SessaForCausalLM"], "vocab_size": vocab, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "layer_norm_eps": options.layer_norm_eps, "use_forward_rope": not options.no_rope, "rope_theta": options.rope_theta,
        "gamma_max": options.gamma_max, "tie_word_embeddings": tie, "max_position_embeddings": options.max_position_embeddings,
        "torch_dtype": TORCH_NAMES[dtype]}
    for key in ("bos_token_id", "eos_token_id"):
        if getattr(options, key) is not None:
            config[key] = getattr(options, key)
    return config


def config_of(tensors, options):
    """The sizes that the weights say, and their type."""
    for name in ("embed.weight", "layers.0.mixer.k_proj.weight"):
        if name not in tensors:
            raise Problem(f"no tensor is {name}")
    vocab, hidden = tensors["embed.weight"].shape
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers."))
    heads = options.num_attention_heads
    if "layers.0.mixer.out_proj.weight" not in tensors:
        heads = 1
    if heads is None:
        raise Problem("--num_attention_heads: the weights do not say it")
    if heads < 1 or hidden % heads:
        raise Problem(f"--num_attention_heads {heads} does not divide the hidden size, {hidden}")
    kv_rows = tensors["layers.0.mixer.k_proj.weight"].shape[0]
    if kv_rows % (hidden // heads):
        raise Problem(f"--num_attention_heads {heads}: k_proj's {kv_rows} rows are no whole heads of {hidden // heads}")
    head = tensors.get("lm_head.weight")
    if head is not None and head.same_as(tensors["embed.weight"]):
        del tensors["lm_head.weight"]
        head = None
    dtype = tensors["embed.weight"].dtype
    return make_config(hidden, layers, heads, kv_rows // (hidden // heads), vocab, head is None,
                       options.dtype or {"F64": "F32"}.get(dtype, dtype), options)


def convert(options):
    tensors = map_names(read_state_dict(options.file), dict(option.partition("=")[::2] for option in options.rename))
    config = config_of(tensors, options)
    shapes = all_shapes(config)
    for name in tensors:
        if name not in shapes:
            raise Problem(f"{name}: there is no such tensor in a model of {config['num_hidden_layers']} layers and "
                          f"{config['num_attention_heads']} heads")
    for name, shape in shapes.items():
        if name not in tensors:
            raise Problem(f"no tensor is {name}")
        if tensors[name].dtype not in ("F64", *TORCH_NAMES):
            raise Problem(f"{name}: {tensors[name].dtype} is no type of weights")
        wide = lambda sizes: [n for n in sizes if n != 1]  # a scalar may be [], [1] or [1, 1]
        if wide(tensors[name].shape) != wide(shape):
            raise Problem(f"{name} has shape {tensors[name].shape}, {shape} is asked for")
    write_folder(options, config, tensors.__getitem__)
    return config


def printable_ids(tokenizer):
    """Ids whose text is whole by itself. Byte-level BPE writes a byte of ASCII as itself and the space as 'Ġ'."""
    special = {token["id"] for token in tokenizer.get("added_tokens", [])}
    return [i for token, i in tokenizer["model"]["vocab"].items()
            if i not in special and all(c == "Ġ" or "!" <= c <= "~" for c in token)]


def random_values(name, shape, random, printable):
    """Matrices scaled by 1 / sqrt(columns), norms around 1. Logits spread by about 30; a row of zeros in the head, which
    scores 0, is never the best: with `printable` each generated token is a word or a part of one, never half a character or
    the end, so that a stream has an event for every token."""
    uniform = random.uniform(-1, 1, shape).astype(np.float32)
    scale = (3 / shape[-1]) ** 0.5
    if name == "lm_head.weight" and printable is not None:
        head = np.zeros(shape, np.float32)
        head[printable] = 30 * scale * uniform[printable]
        return head
    if name.endswith("gamma_bias"):
        return 0.5 + 0.2 * uniform
    if len(shape) == 1:
        return (1 if name.endswith(("ln.weight", "norm.weight")) else 0) + (0.2 if "weight" in name else 0.1) * uniform
    return {"embed.weight": 1, "lm_head.weight": 30 * scale}.get(name, scale) * uniform


def make_random(options):
    vocab, printable = options.vocab_size, None
    if options.tokenizer is not None:
        tokenizer = json.loads((options.tokenizer / "tokenizer.json").read_text())
        ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer.get("added_tokens", []))]
        vocab = vocab or 1 + max(ids)
        printable = printable_ids(tokenizer)
    if not vocab:
        raise Problem("--vocab_size or --tokenizer is needed")
    heads = options.num_attention_heads or max(1, options.hidden_size // 64)
    config = make_config(options.hidden_size, options.num_hidden_layers, heads,
                         options.num_key_value_heads or (heads // 4 if heads % 4 == 0 else heads), vocab,
                         options.tie_word_embeddings, options.dtype or "BF16", options)
    random, shapes = np.random.default_rng(options.seed), all_shapes(config)
    write_folder(options, config, lambda name: Tensor(random_values(name, shapes[name], random, printable)))
    return config


def write_folder(options, config, make):
    folder = options.dir
    folder.mkdir(parents=True, exist_ok=True)
    dtype = next(name for name, torch_name in TORCH_NAMES.items() if torch_name == config["torch_dtype"])
    write_safetensors(folder / "model.safetensors", dtype, all_shapes(config), make)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if options.tokenizer is not None:
        for name in TOKENIZER_FILES:
            if (options.tokenizer / name).exists():
                shutil.copy(options.tokenizer / name, folder / name)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_state = commands.add_parser("state_dict", help="of a trained model's state_dict")
    of_state.add_argument("file", type=pathlib.Path)
    of_state.add_argument("dir", type=pathlib.Path)
    of_state.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="a name, before all else; OLD= leaves it out")
    of_random = commands.add_parser("random", help="with random weights")
    of_random.add_argument("dir", type=pathlib.Path)
    of_random.add_argument("--hidden_size", type=int, default=768)
    of_random.add_argument("--num_hidden_layers", type=int, default=12)
    of_random.add_argument("--num_key_value_heads", type=int, help="default: a quarter of the heads, or all of them")
    of_random.add_argument("--vocab_size", type=int, help="default: the tokenizer's")
    of_random.add_argument("--tie_word_embeddings", action="store_true")
    of_random.add_argument("--seed", type=int, default=1)
    for command in (of_state, of_random):
        command.add_argument("--num_attention_heads", type=int, help="of random ones: hidden_size / 64")
        command.add_argument("--tokenizer", type=pathlib.Path, help="folder whose tokenizer files are copied")
        command.add_argument("--dtype", choices=("F32", "F16", "BF16"), help="default: the embedding's; of random ones BF16")
        command.add_argument("--max_position_embeddings", type=int, default=4096)
        command.add_argument("--gamma_max", type=float, default=0.999)
        command.add_argument("--rope_theta", type=float, default=10000.0)
        command.add_argument("--layer_norm_eps", type=float, default=1e-5)
        command.add_argument("--no_rope", action="store_true", help="use_forward_rope false")
        command.add_argument("--bos_token_id", type=int)
        command.add_argument("--eos_token_id", type=int)
    return parser.parse_args(arguments)


def run(arguments):
    """The config of the folder that was made."""
    options = parse([str(argument) for argument in arguments])
    return convert(options) if options.command == "state_dict" else make_random(options)


def main():
    try:
        config = run(sys.argv[1:])
    except (Problem, OSError) as problem:
        sys.exit(f"convert: {problem}")
    weights = sum(int(np.prod(shape)) for shape in all_shapes(config).values())
    print(f"{weights} weights, {config['num_hidden_layers']} layers of width {config['hidden_size']}, "
          f"{config['num_attention_heads']} heads ({config['num_key_value_heads']} of keys and values), vocabulary of "
          f"{config['vocab_size']}")


if __name__ == "__main__":
    main()
