"""Eager PyTorch of the Sessa equations, one sequence with a cache: what a researcher's model file does, on a CPU or a GPU
(gpu_peers.py). Checks itself against the published outputs first (tests/reference/data), so that the peer computes what we
compute."""
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.nn.attention.bias import causal_lower_right

import measure
import shape

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Sessa:
    def __init__(self, config, weights, dtype, max_context, device="cpu"):
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.hidden, self.layers = config["hidden_size"], config["num_hidden_layers"]
        self.eps, self.gamma_max = config["layer_norm_eps"], config["gamma_max"]
        self.head_dim = self.hidden // self.heads
        self.device = torch.device(device)
        self.w = {name: value.to(self.device, dtype) for name, value in weights.items()}
        head = "embed.weight" if config["tie_word_embeddings"] else "lm_head.weight"
        self.lm_head = self.w[head]
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        angles = torch.outer(torch.arange(max_context, dtype=torch.float32), config["rope_theta"] ** -exponent)
        self.cos, self.sin = angles.cos().to(self.device, dtype), angles.sin().to(self.device, dtype)  # [max_context, d / 2]
        self.use_rope = config["use_forward_rope"]
        kv, wide = (self.layers, self.kv_heads, max_context, self.head_dim), (self.layers, max_context, self.hidden)
        zeros = lambda sizes: torch.zeros(sizes, dtype=dtype, device=self.device)
        self.k_f, self.v_f, self.k_b, self.s = zeros(kv), zeros(kv), zeros(wide), zeros(wide)
        self.length = 0

    def linear(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def norm(self, name, x):
        return F.layer_norm(x, (self.hidden,), self.w[name + ".weight"], self.w[name + ".bias"], self.eps)

    def rope(self, x, start):  # [heads, T, d], even and odd are the pairs
        if not self.use_rope:
            return x
        cos, sin = self.cos[start:start + x.shape[1]], self.sin[start:start + x.shape[1]]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

    def attend(self, n, mixer, u, start):
        rows, end = u.shape[0], start + u.shape[0]
        split = lambda x, heads: x.view(rows, heads, self.head_dim).transpose(0, 1)
        q = self.rope(split(self.linear(mixer + "q_proj", u), self.heads), start)
        self.k_f[n, :, start:end] = self.rope(split(self.linear(mixer + "k_proj", u), self.kv_heads), start)
        self.v_f[n, :, start:end] = split(self.linear(mixer + "v_proj", u), self.kv_heads)
        mask = None
        if rows > 1 and start > 0:  # on a GPU without a mask in memory, which would keep PyTorch from its fast kernels
            mask = torch.ones(rows, end, dtype=torch.bool).tril(start) if self.device.type == "cpu" else causal_lower_right(rows, end)
        f = F.scaled_dot_product_attention(q[None], self.k_f[n, None, :, :end], self.v_f[n, None, :, :end], attn_mask=mask,
                                           is_causal=rows > 1 and start == 0, enable_gqa=self.heads != self.kv_heads)
        f = f[0].transpose(0, 1).reshape(rows, self.hidden)
        return f if self.heads == 1 else self.linear(mixer + "out_proj", f)

    def feedback(self, n, mixer, u, f, start):
        rows, end = u.shape[0], start + u.shape[0]
        q_b, k_b = self.linear(mixer + "proj_fb", u).chunk(2, -1)
        self.k_b[n, start:end] = k_b
        gamma = self.gamma_max * torch.tanh(self.w[mixer + "gamma_bias"] + self.linear(mixer + "gamma_ctx", u)).float()
        if rows == 1 and start > 0:  # [1, start]: the past alone, nothing to solve
            alpha = torch.softmax((q_b @ self.k_b[n, :start].T).float() / math.sqrt(self.hidden), -1)
            s = f + (gamma * alpha).to(f.dtype) @ self.s[n, :start]
        else:
            scores = (q_b @ self.k_b[n, :end].T).float() / math.sqrt(self.hidden)
            future = torch.ones(rows, end, dtype=torch.bool, device=self.device).triu(start)
            scores.masked_fill_(future, -math.inf)  # strictly the past
            alpha = torch.softmax(scores, -1)
            if start == 0:
                alpha[0] = 0  # the first token has none
            b = gamma * alpha
            right = f.float() + (b[:, :start].to(f.dtype) @ self.s[n, :start]).float() if start > 0 else f.float()
            s = torch.linalg.solve_triangular(-b[:, start:], right, upper=False, unitriangular=True).to(f.dtype)
        self.s[n, start:end] = s
        return s

    def forward(self, ids, all_rows=False):
        """Logits of the last row, or of all."""
        start = self.length
        x = self.w["embed.weight"][ids]
        for n in range(self.layers):
            layer, mixer = f"layers.{n}.", f"layers.{n}.mixer."
            a, g = self.linear(layer + "W_in", self.norm(layer + "ln", x)).chunk(2, -1)
            u = F.gelu(a)
            s = self.feedback(n, mixer, u, self.attend(n, mixer, u, start), start)
            x = x + self.linear(layer + "W_out", s * g)
        self.length = start + len(ids)
        return F.linear(self.norm("norm", x if all_rows else x[-1:]), self.lm_head)


def check_against_published(device="cpu", tolerance=2e-5):
    data = pathlib.Path(__file__).parents[2] / "reference" / "data"
    for name in ("gqa", "mha", "one_head", "no_rope"):
        folder = data / name
        config = json.loads((folder / "config.json").read_text())
        expected = load_file(folder / "expected.safetensors")
        ids, logits = expected["input_ids"].long().to(device), expected["logits"].to(device)
        model = Sessa(config, load_file(folder / "model.safetensors"), torch.float32, ids.shape[1], device)
        for b in range(ids.shape[0]):
            model.length = 0
            pieces, cut = [], [0, ids.shape[1] // 2, ids.shape[1] - 8, *range(ids.shape[1] - 7, ids.shape[1] + 1)]
            for begin, end in zip(cut, cut[1:]):  # two chunks, then one by one
                pieces.append(model.forward(ids[b, begin:end], all_rows=True))
            error = (torch.cat(pieces) - logits[b]).abs().max() / logits[b].abs().max()
            assert error < tolerance, f"{name}, sequence {b}: the logits are off by {error:.1e}"


def random_model(hidden, layers, heads, kv_heads, vocab, dtype=torch.float32, device="cpu"):
    """Config and weights. K = kv_heads."""
    d, kv = hidden, kv_heads * hidden // heads
    config = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_size": d,
              "num_hidden_layers": layers, "layer_norm_eps": 1e-5, "gamma_max": 0.999, "rope_theta": 10000.0,
              "use_forward_rope": True, "tie_word_embeddings": False}
    torch.manual_seed(1)
    kind = {"dtype": dtype, "device": device}
    weights = {"embed.weight": torch.randn(vocab, d, **kind), "lm_head.weight": torch.randn(vocab, d, **kind) / math.sqrt(d)}

    def linear(name, rows, bias=True):
        weights[name + ".weight"] = torch.randn(rows, d, **kind) / math.sqrt(d)
        if bias:
            weights[name + ".bias"] = torch.zeros(rows, **kind)

    def norm(name):
        weights[name + ".weight"], weights[name + ".bias"] = torch.ones(d, **kind), torch.zeros(d, **kind)

    for n in range(layers):
        layer, mixer = f"layers.{n}.", f"layers.{n}.mixer."
        norm(layer + "ln")
        linear(layer + "W_in", 2 * d)
        for name, rows in (("q_proj", d), ("k_proj", kv), ("v_proj", kv), ("proj_fb", 2 * d)):
            linear(mixer + name, rows)
        linear(mixer + "out_proj", d, bias=False)
        linear(mixer + "gamma_ctx", 1, bias=False)
        weights[mixer + "gamma_bias"] = torch.full((1,), 0.5, **kind)
        linear(layer + "W_out", d)
    norm("norm")
    return config, weights


def main():
    arguments = measure.parse_arguments(list(DTYPES))
    torch.set_num_threads(arguments.threads)
    with torch.inference_mode():
        check_against_published()
        model = Sessa(*random_model(shape.HIDDEN, shape.LAYERS, shape.HEADS, shape.KV_HEADS, shape.VOCAB), DTYPES[arguments.weights],
                      shape.MAX_CONTEXT)

        def prepare(context):
            if model.length < context:  # computed once, then cut back to
                model.length = 0
                for begin in range(0, context, 512):
                    model.forward(torch.arange(begin, min(begin + 512, context)))
            model.length = context

        measure.run(arguments, prepare, lambda rows: int(model.forward(torch.arange(rows)).argmax()))


if __name__ == "__main__":
    main()
