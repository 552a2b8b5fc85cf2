#!/usr/bin/env python3
"""Our CUDA backend beside PyTorch on one GPU: eager steps of the same equations (torch_sessa.py) and its fused attention
alone (scaled_dot_product_attention), after cuda_bench in the same run.

    gpu_peers.py --out FILE.json [--device cpu]

Writes {benchmark as cuda_bench names it: [[program, [seconds, ...]], ...]}, after each one, for peer_table.py. As in cuda_bench
the times are those between two events on the device, and a step goes from token ids to logits. --device cpu: tiny shapes,
to try the program out without a GPU.
"""
import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

import torch_sessa


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    decode: tuple   # contexts of decode steps, batch 1
    prefill: tuple  # (rows, context) of prefill steps


CHUNK, PROMPT = 2048, 32768
PREFILL = ((CHUNK, 0), (CHUNK, PROMPT - CHUNK))
SHAPES = (Shape("A", 1024, 24, 16, 4, 32000, (2048,), PREFILL), Shape("B", 2048, 24, 16, 4, 32000, (), PREFILL),
          Shape("C", 4096, 32, 32, 8, 32000, (2048,), PREFILL))
TINY = (Shape("T", 64, 2, 4, 1, 48, (20,), ((16, 0), (16, 32))),)


class Clock:
    """Seconds of one call of a function on a device: several samples, after one call that does not count."""

    def __init__(self, device, case_seconds=0.4, most=11):
        self.device, self.case_seconds, self.most = device, case_seconds, most

    def sample(self, body, runs):
        if self.device.type == "cpu":
            begin = time.perf_counter()
            for _ in range(runs):
                body()
            return (time.perf_counter() - begin) / runs
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(runs):
            body()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / runs

    def measure(self, body):
        body()
        once = self.sample(body, 1)
        runs = max(1, min(32, int(1e-3 / once)))
        samples = [once] if once >= self.case_seconds else []
        while len(samples) < 2 or (len(samples) < self.most and sum(samples) * runs < self.case_seconds):
            samples.append(self.sample(body, runs))
        return samples


def measure_steps(shape, clock):
    """Eager decode and prefill steps: (name as cuda_bench has it, seconds)."""
    dtype = torch.bfloat16
    longest = max(sum(step) for step in (*shape.prefill, *((1, context) for context in shape.decode))) + 1
    config, weights = torch_sessa.random_model(shape.hidden, shape.layers, shape.heads, shape.kv_heads, shape.vocab, dtype, clock.device)
    model = torch_sessa.Sessa(config, weights, dtype, longest, clock.device)
    for state in (model.k_f, model.v_f, model.k_b, model.s):  # as if it had been computed
        state.normal_()
    steps = [(f"DecodeStep/{shape.name}/batch:1/context:{context}", 1, context) for context in shape.decode]
    steps += [(f"PrefillStep/{shape.name}/rows:{rows}/context:{context}", rows, context) for rows, context in shape.prefill]
    for name, rows, context in steps:
        ids = torch.arange(rows, device=clock.device) % shape.vocab

        def step():
            model.length = context
            return model.forward(ids)

        yield name, clock.measure(step)


def measure_attention(shape, clock):
    """The forward attention of a prefill chunk by PyTorch's fused kernel, keys and values in one piece each."""
    d = shape.hidden // shape.heads
    for rows, context in shape.prefill:
        q = torch.randn(1, shape.heads, rows, d, dtype=torch.bfloat16, device=clock.device)
        k, v = torch.randn(2, 1, shape.kv_heads, context + rows, d, dtype=torch.bfloat16, device=clock.device)
        mask = causal_lower_right(rows, context + rows)
        yield (f"Attend/D:{shape.hidden}/rows:{rows}/context:{context}",
               clock.measure(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_peers: PyTorch sees no GPU")
    device = torch.device(arguments.device)
    clock = Clock(device)
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name() if device.type == 'cuda' else 'a CPU, tiny shapes'}", flush=True)
    peers = {}
    with torch.inference_mode():
        # float32 products add in another order on a GPU.
        try:
            torch_sessa.check_against_published(device, 2e-5 if device.type == "cpu" else 1e-4)
            wrong = None
        except AssertionError as error:  # its times may still tell something
            wrong = f"gpu_peers: PyTorch does not give the published outputs: {error}"
        for shape in SHAPES if device.type == "cuda" else TINY:
            for program, measure in (("PyTorch SDPA", measure_attention), ("PyTorch eager", measure_steps)):
                try:
                    for name, seconds in measure(shape, clock):
                        print(f"{program}: {name}: {statistics.median(seconds) * 1e6:.1f} us", flush=True)
                        peers.setdefault(name, []).append((program, seconds))
                        arguments.out.write_text(json.dumps(peers))
                except torch.OutOfMemoryError as error:
                    print(f"{program}, shape {shape.name}: does not fit: {str(error).splitlines()[0]}")
                except RuntimeError as error:  # the shapes that follow may do
                    wrong = f"gpu_peers: {program}, shape {shape.name}: {error}"
                    print(wrong, flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
