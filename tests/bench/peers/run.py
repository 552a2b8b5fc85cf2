"""./dev bench peers: our own steps and the peers', in turns on the same two cores, against the limits measured in the same
run. Prints one Markdown table."""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

import shape

HERE = pathlib.Path(__file__).parent
# Program, weights, family, bytes of a weight and of a value of state. q8_0: 34 bytes for 32 weights.
PEERS = (("PyTorch eager", "torch_sessa.py", "bf16", "sessa", 2, 2), ("PyTorch eager", "torch_sessa.py", "f32", "sessa", 4, 4),
         ("llama.cpp", "llama_cpp_peer.py", "bf16", "transformer", 2, 2), ("llama.cpp", "llama_cpp_peer.py", "f16", "transformer", 2, 2),
         ("llama.cpp", "llama_cpp_peer.py", "q8_0", "transformer", 34 / 32, 2),
         ("CTranslate2", "ctranslate2_peer.py", "f32", "transformer", 4, 4), ("CTranslate2", "ctranslate2_peer.py", "int8", "transformer", 1, 4))
# The same for our own steps, by the format's name in sessa_bench; int8: a bf16 scale for 64 weights. bf16dot: --activation_dtype
# bf16, where the CPU has the instruction.
OURS = {"bf16": ("ours", None, "bf16", "sessa", 2, 2), "bf16dot": ("ours, bf16 activations", None, "bf16", "sessa", 2, 2),
        "int8": ("ours", None, "int8", "sessa", 1 + 2 / 64, 2)}


def run_ours(bench, out):
    """[(peer, workload name, seconds of a step)], and (bytes/s, FLOP/s) of the machine."""
    names = {f"DecodeStep/{form}/D:{shape.HIDDEN}/batch:1/context:{w.context}" if w.rows == 1 else
             f"PrefillStep/{form}/D:{shape.HIDDEN}/rows:{w.rows}/context:{w.context}": (peer, w.name)
             for form, peer in OURS.items() for w in shape.WORKLOADS}
    pattern = "^(" + "|".join(names) + ")/"
    done = subprocess.run([bench, f"--benchmark_filter={pattern}", f"--benchmark_out={out}", "--benchmark_out_format=json"],
                          check=True, stdout=subprocess.PIPE, text=True)
    limits = re.search(r"read ([\d.]+) GB/s, float32 FMA ([\d.]+)", done.stdout)
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
    answer = [(*names[entry["run_name"].split("/min_time")[0]], entry["real_time"] * units[entry["time_unit"]])
              for entry in json.loads(pathlib.Path(out).read_text())["benchmarks"] if entry["run_type"] == "iteration"]
    return answer, (float(limits[1]) * 1e9, float(limits[2]) * 1e9)


def run_peer(peer, threads, work_dir):
    command = [sys.executable, str(HERE / peer[1]), "--weights", peer[2], "--threads", str(threads)]
    if peer[3] == "transformer":
        command += ["--work_dir", str(work_dir)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def rows_of(workload, seconds, read_bytes, fma_flops):
    """The table's rows of one workload. seconds: {peer: [seconds of a step]}."""
    ours = statistics.median(seconds[OURS["bf16"]])
    for peer, samples in seconds.items():
        if not samples:  # this CPU has no such step
            continue
        name, _, weights, family, weight_bytes, state_bytes = peer
        median = statistics.median(samples)
        if workload.rows == 1:
            work = shape.decode_bytes(family, workload.context, weight_bytes, state_bytes)
            amount, of_limit = f"{work * 1e-9:.3f} GB", work / median / read_bytes
        else:
            work = shape.prefill_flops(family, workload.rows, workload.context)
            amount, of_limit = f"{work * 1e-9:.0f} GFLOP", work / median / fma_flops
        rate = lambda s: f"{workload.rows / s:.1f}"
        yield (f"| {workload.name} | {name} | {'Sessa' if family == 'sessa' else 'Transformer'} | {weights} | {rate(median)} "
               f"({rate(max(samples))} to {rate(min(samples))}) | {amount} | {100 * of_limit:.0f} % | {median / ours:.2f} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True, help="our sessa_bench")
    parser.add_argument("--work_dir", required=True, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="a part of a peer's program and weights, such as llama or torch_sessa.py-f32")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:arguments.threads]
    os.sched_setaffinity(0, cores)  # of every program that runs from here
    peers = [p for p in PEERS if arguments.only in f"{p[1]}-{p[2]}"]

    seconds = {workload.name: {peer: [] for peer in [*OURS.values(), *peers]} for workload in shape.WORKLOADS}
    limits = []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}: ours", file=sys.stderr)
        answer, limit = run_ours(arguments.bench, arguments.work_dir / "ours.json")
        limits.append(limit)
        for peer, workload, sample in answer:
            seconds[workload][peer].append(sample)
        for peer in peers:
            print(f"round {number + 1} of {arguments.rounds}: {peer[0]} {peer[2]}", file=sys.stderr)
            for workload, samples in run_peer(peer, len(cores), arguments.work_dir).items():
                seconds[workload][peer] += samples
    read_bytes, fma_flops = (statistics.median(column) for column in zip(*limits))
    spread = lambda column, unit: " to ".join(f"{f(l[column] for l in limits) * 1e-9:.{unit}f}" for f in (min, max))
    print(f"{len(cores)} threads. {len(limits)} rounds, the limits measured in each: read {read_bytes * 1e-9:.1f} GB/s ({spread(0, 1)}), "
          f"float32 FMA {fma_flops * 1e-9:.0f} GFLOP/s ({spread(1, 0)}).\n")
    print("| step | program | model | weights | tokens/s, median (spread) | work of a step | of the limit | time, ours = 1 |")
    print("|---|---|---|---|---|---|---|---|")
    for workload in shape.WORKLOADS:
        for row in rows_of(workload, seconds[workload.name], read_bytes, fma_flops):
            print(row)


main()
