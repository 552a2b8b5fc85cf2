#!/usr/bin/env python3
"""Registers, spills and stack of the CUDA kernels, as ptxas counts them, against the limits below.

check_resources.py NVCC FLAGS... -- SOURCE.cu...   compiles each source and prints one line for each kernel.
Two blocks of 256 threads on a multiprocessor need kernels of at most 128 registers, three need 80, four 64.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

# (pattern of the mangled name, most registers). The first that matches counts; a kernel that none matches may not spill.
LIMITS = [
    (r"TileKernel.*Li1ELb1E", 80),       # decode, one query: three blocks
    (r"TileKernel.*Li8ELb1E", 128),      # decode, up to eight queries: two blocks
    (r"TileKernel.*Li8ELb0E", 255),      # prefill scores, 8 x 8 results a thread: one block
    (r"ValueKernel", 128),
    (r"ScoreKernel", 128),               # prefill scores and values on the tensor cores: two blocks
    (r"FusedAttentionKernelILi64E", 128),   # four blocks of 128 threads
    (r"FusedAttentionKernelILi128E", 255),  # two
    (r"FoldKernel", 64),
    (r"SolveKernel", 128),
    (r"TensorLinearKernel", 128),
    (r"LinearKernel.*Li1ELb1E", 80),
    (r"LinearKernel.*Li8ELb1E", 128),
    (r"LinearKernel.*Li8ELb0E", 255),
]
FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def kernels_of(log):
    """[(name, registers, spilled bytes)] of a ptxas -v log."""
    found, name, spilled = [], None, 0
    for line in log.splitlines():
        if match := FUNCTION.search(line):
            name, spilled = match.group(1), 0
        elif name and (match := SPILLS.search(line)):
            spilled = int(match.group(1)) + int(match.group(2))
        elif name and (match := REGISTERS.search(line)):
            found.append((name, int(match.group(1)), spilled))
            name = None
    return found


def main():
    split = sys.argv.index("--")
    compiler, sources = sys.argv[1:split], sys.argv[split + 1:]
    failures, seen = [], set()
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            done = subprocess.run([*compiler, "-cubin", "-Xptxas=-v", source, "-o", f"{folder}/out.cubin"], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            kernels = kernels_of(done.stdout + done.stderr)
            if not kernels:
                sys.exit(f"{source}: ptxas named no kernel")
            for name, registers, spilled in kernels:
                pattern, limit = next((l for l in LIMITS if re.search(l[0], name)), (None, 255))
                seen.add(pattern)
                print(f"{pathlib.Path(source).name:20} {registers:4} registers (at most {limit}), {spilled} bytes spilled: {name}")
                if registers > limit or spilled:
                    failures.append(f"{name}: {registers} registers of at most {limit}, {spilled} bytes spilled")
    failures += [f"no kernel matches {pattern}" for pattern, _ in LIMITS if pattern not in seen]
    for failure in failures:
        print("FAILED", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
