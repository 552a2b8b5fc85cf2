"""What a replica on a card can hold and at most do, for Sessa models, computed from shapes and data sheets; prints Markdown.

    capacity.py [--config config.json ...] [--card NAME:GB:GB_PER_S:TFLOPS ...] [--state_bits 16] [--contexts 2048,32768]

Nothing here was measured: tokens and streams are what fits, rates are bounds by bytes and FLOPs that no kernel passes. The work of a
token is that of docs/architecture.md: a layer has 2 K d + 2 D values of state a token, decode reads every weight once a step and each
stream's state, a prompt of T costs a layer 2 FLOPs a weight and token and 4 D T^2 for its attentions and its solve.
"""
import argparse
import dataclasses
import json
import pathlib

CACHE_SHARE = 0.9  # of what the weights leave, which the server takes on a GPU (--state_cache_bytes)


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int = 32000
    tied: bool = False

    @property
    def layer_weights(self):
        kv = self.hidden * self.kv_heads // self.heads
        out = self.hidden * self.hidden if self.heads > 1 else 0
        return self.hidden * (2 * self.hidden + self.hidden + 2 * kv + 2 * self.hidden + self.hidden) + out  # in, q, k and v, fb, W_out

    def weight_bytes(self):
        """In bf16: layers, embedding and head."""
        return 2 * (self.layers * self.layer_weights + (1 if self.tied else 2) * self.vocab * self.hidden)

    def read_bytes(self):
        """Of the weights, by a step: one row of the embedding is nothing."""
        return 2 * (self.layers * self.layer_weights + self.vocab * self.hidden)

    def token_bytes(self, state_bits):
        return self.layers * (2 * self.hidden * self.kv_heads // self.heads + 2 * self.hidden) * state_bits // 8

    def prompt_flops(self, tokens):
        return self.layers * (2 * self.layer_weights * tokens + 4 * self.hidden * tokens * tokens)


@dataclasses.dataclass(frozen=True)
class Card:
    name: str
    memory: float  # bytes
    bandwidth: float  # bytes a second
    flops: float  # a second, dense bf16


# Data sheets, of what the CUDA backend is built for.
CARDS = (Card("H100 PCIe", 80e9, 2.0e12, 756e12), Card("H100 SXM", 80e9, 3.35e12, 989e12), Card("H200", 141e9, 4.8e12, 989e12))
SHAPES = (Shape("A", 1024, 24, 16, 4), Shape("B", 2048, 24, 16, 4), Shape("C", 4096, 32, 32, 8))


def of_config(path):
    config = json.loads(path.read_text())
    heads = config["num_attention_heads"]
    return Shape(path.parent.name or str(path), config["hidden_size"], config["num_hidden_layers"], heads,
                 config.get("num_key_value_heads", heads), config["vocab_size"], config.get("tie_word_embeddings", False))


def of_text(text):
    name, memory, bandwidth, tflops = text.split(":")
    return Card(name, float(memory) * 1e9, float(bandwidth) * 1e9, float(tflops) * 1e12)


def tokens_of(shape, card, state_bits):
    """That the cache holds; 0: the weights do not fit."""
    return max(0, int(CACHE_SHARE * (card.memory - shape.weight_bytes()) / shape.token_bytes(state_bits)))


def decode(shape, card, state_bits, streams, context):
    """(tokens a second of all streams, seconds of a step) at most."""
    step = (shape.read_bytes() + streams * context * shape.token_bytes(state_bits)) / card.bandwidth
    return streams / step, step


def rounded(value):
    """Two figures: no bound is known better."""
    if value <= 0:
        return "0"
    value = float(f"{value:.2g}")
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}K" if value >= 1e4 else f"{value:g}"


def rows(shapes, cards, state_bits, contexts):
    for shape in shapes:
        for card in cards:
            tokens = tokens_of(shape, card, state_bits)
            cells = [shape.name, card.name, f"{shape.weight_bytes() * 1e-9:.1f} GB", f"{shape.token_bytes(state_bits) / 1024:g} KiB", rounded(tokens)]
            for context in contexts:
                streams = tokens // context
                one = decode(shape, card, state_bits, 1, context)[0]
                if streams == 0:
                    cells += ["0", "", "", ""]
                    continue
                rate, step = decode(shape, card, state_bits, streams, context)
                cells += [rounded(streams), rounded(one), f"{rounded(rate)} ({1e3 * step:.0f} ms)",
                          rounded(context * card.flops / shape.prompt_flops(context))]
            yield cells


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=pathlib.Path, action="append", help="of a checkpoint, in place of shapes A, B and C")
    parser.add_argument("--card", type=of_text, action="append", help="in place of those known")
    parser.add_argument("--state_bits", type=int, default=16)
    parser.add_argument("--contexts", default="2048,32768")
    options = parser.parse_args()
    contexts = [int(context) for context in options.contexts.split(",")]
    head = ["shape", "card", "weights", "a token", "tokens of state"]
    for context in contexts:
        head += [f"streams at {context}", "one stream, tokens/s", "all, tokens/s (a step)", "prompts, tokens/s"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for cells in rows([of_config(path) for path in options.config or ()] or SHAPES, options.card or CARDS, options.state_bits, contexts):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
