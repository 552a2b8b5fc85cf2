"""A checkpoint folder with random weights of a chosen size and the tokenizer of models/demo, for measurements where only the
amount of work matters. Its output head knows printable tokens only: each token that it generates is a word or a part of one,
never half a character or the end, so a stream has an event for every token.

    random_checkpoint.py DIR [--hidden 768] [--layers 12] [--max_len 131072]
"""
import argparse
import json
import pathlib
import shutil

import numpy as np

DEMO = pathlib.Path(__file__).parents[3] / "models" / "demo"
HEAD_SIZE, QUERY_HEADS_PER_KV = 64, 4


def printable_ids(tokenizer):
    """Ids whose text is whole by itself. Byte-level BPE writes a byte of ASCII as itself and the space as 'Ġ'."""
    special = {token["id"] for token in tokenizer["added_tokens"]}
    return [i for token, i in tokenizer["model"]["vocab"].items()
            if i not in special and all(c == "Ġ" or "!" <= c <= "~" for c in token)]


def tensors(config, printable, random):
    """(name, float32 array) of each weight: matrices scaled by 1 / sqrt(columns), norms around 1."""
    D, V = config["hidden_size"], config["vocab_size"]
    kv = config["num_key_value_heads"] * HEAD_SIZE
    uniform = lambda *shape: random.uniform(-1, 1, shape).astype(np.float32)
    scale = (3 / D) ** 0.5

    def linear(name, rows):
        yield f"{name}.weight", scale * uniform(rows, D)
        yield f"{name}.bias", 0.1 * uniform(rows)

    def norm(name):
        yield f"{name}.weight", 1 + 0.2 * uniform(D)
        yield f"{name}.bias", 0.1 * uniform(D)

    yield "embed.weight", uniform(V, D)
    for n in range(config["num_hidden_layers"]):
        layer = f"layers.{n}"
        yield from norm(f"{layer}.ln")
        for name, rows in (("W_in", 2 * D), ("mixer.q_proj", D), ("mixer.k_proj", kv), ("mixer.v_proj", kv),
                           ("mixer.proj_fb", 2 * D), ("W_out", D)):
            yield from linear(f"{layer}.{name}", rows)
        yield f"{layer}.mixer.out_proj.weight", scale * uniform(D, D)
        yield f"{layer}.mixer.gamma_bias", 0.5 + 0.2 * uniform(1)
        yield f"{layer}.mixer.gamma_ctx.weight", scale * uniform(1, D)
    yield from norm("norm")
    # Logits spread by about 30: a row of zeros, which scores 0, is never the best nor ever sampled.
    head = np.zeros((V, D), np.float32)
    head[printable] = 30 * scale * uniform(len(printable), D)
    yield "lm_head.weight", head


def bf16(values):
    return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def write_safetensors(path, weights):
    header, offset = {}, 0
    for name, values in weights.items():
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in weights.values():
            values.tofile(file)


def make(folder, hidden=768, layers=12, max_len=131072, seed=1):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder / name)
    config = json.loads((DEMO / "config.json").read_text())
    heads = hidden // HEAD_SIZE
    config.update(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                  num_key_value_heads=heads // QUERY_HEADS_PER_KV, tie_word_embeddings=False, max_position_embeddings=max_len)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    printable = printable_ids(json.loads((DEMO / "tokenizer.json").read_text()))
    weights = {name: bf16(values) for name, values in tensors(config, printable, np.random.default_rng(seed))}
    write_safetensors(folder / "model.safetensors", weights)
    return sum(values.size for values in weights.values())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--max_len", type=int, default=131072)
    arguments = parser.parse_args()
    if arguments.hidden % (HEAD_SIZE * QUERY_HEADS_PER_KV):
        parser.error(f"--hidden must be a multiple of {HEAD_SIZE * QUERY_HEADS_PER_KV}")
    print(make(arguments.dir, arguments.hidden, arguments.layers, arguments.max_len), "weights")


if __name__ == "__main__":
    main()
