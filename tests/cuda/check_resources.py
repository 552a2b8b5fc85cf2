#!/usr/bin/env python3
"""Registers and local memory (spills, and arrays that registers cannot hold) of the CUDA kernels against the limits below.

check_resources.py --cuobjdump CUOBJDUMP FILE...   what is in compiled objects or programs, by cuobjdump
check_resources.py NVCC FLAGS... -- SOURCE.cu...   compiles each source and takes ptxas's word

Prints one line for each kernel. Two blocks of 256 threads on a multiprocessor need kernels of
at most 128 registers, three need 80, four 64.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

# (pattern of the mangled name, most registers). The first that matches counts; a kernel that none matches may have all 255.
LIMITS = [
    (r"FewTileKernel", 128),             # decode: two blocks
    (r"TileKernel", 255),                # prefill scores, 8 x 8 results a thread: one block
    (r"panel_scores.*ScoreKernel", 255),  # prefill, 64 x 256 results a warpgroup: one block of 256 threads
    (r"panel_values.*ValueKernel", 255),
    (r"TriangleKernel", 255),            # one block, for its shared memory
    (r"JoinKernel", 128),
    (r"ValueKernel", 128),
    (r"FusedAttentionKernelILi64E", 128),   # two blocks
    (r"FusedAttentionKernelILi128E", 255),  # one
    (r"FoldKernel", 64),
    (r"SolveKernel", 128),
    (r"TensorLinearKernel", 128),
    (r"SampleKernel", 64),                # a block of 1024 threads
    (r"LinearKernel.*Li1ELb1E", 80),
    (r"LinearKernel.*Li8ELb1E", 128),
    (r"LinearKernel.*Li8ELb0E", 255),
]
# (pattern, most bytes of local memory); other kernels may use none.
LOCAL_LIMITS = [
    (r"RopeAnglesKernel", 40),           # sinf and cosf of large angles: the reduction by 2 pi keeps an array
]
PTXAS_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
PTXAS_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
PTXAS_REGISTERS = re.compile(r"Used (\d+) registers")
CUOBJDUMP = re.compile(r"^ *Function (\w+):\n *REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", re.M)


def kernels_of_ptxas(log):
    """[(name, registers, bytes of local memory)] of a ptxas -v log."""
    found, name, local = [], None, 0
    for line in log.splitlines():
        if match := PTXAS_FUNCTION.search(line):
            name, local = match.group(1), 0
        elif name and (match := PTXAS_LOCAL.search(line)):
            local = max(map(int, match.groups()))
        elif name and (match := PTXAS_REGISTERS.search(line)):
            found.append((name, int(match.group(1)), local))
            name = None
    return found


def kernels_of_cuobjdump(text):
    """The same of cuobjdump --dump-resource-usage."""
    return [(name, int(registers), int(stack) + int(local)) for name, registers, stack, local in CUOBJDUMP.findall(text)]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def kernels_by_file(arguments):
    """Yields (file, kernels)."""
    if arguments[0] == "--cuobjdump":
        for file in arguments[2:]:
            yield file, kernels_of_cuobjdump(run([arguments[1], "--dump-resource-usage", file]))
        return
    split = arguments.index("--")
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments[split + 1:]:
            log = run([*arguments[:split], "-cubin", "-Xptxas=-v", source, "-o", f"{folder}/out.cubin"])
            if match := re.search(r".*Potential Performance Loss.*", log):  # wgmma that waits for each product: no warning to ptxas
                sys.exit(f"{source}: {match.group()}")
            yield source, kernels_of_ptxas(log)


def failures_of(kernels):
    """What is wrong with these kernels, all of the backend's."""
    failures, seen = [], set()
    for name, registers, local in kernels:
        pattern, limit = next((l for l in LIMITS if re.search(l[0], name)), (None, 255))
        local_limit = next((l[1] for l in LOCAL_LIMITS if re.search(l[0], name)), 0)
        seen.add(pattern)
        if registers > limit or local > local_limit:
            failures.append(f"{name}: {registers} registers of at most {limit}, {local} bytes of local memory of at most {local_limit}")
    return failures + [f"no kernel matches {pattern}" for pattern, _ in LIMITS if pattern not in seen]


def main():
    kernels = []
    for file, found in kernels_by_file(sys.argv[1:]):
        if not found:
            sys.exit(f"{file}: no kernel")
        for name, registers, local in found:
            print(f"{pathlib.Path(file).name:20} {registers:4} registers, {local} bytes of local memory: {name}")
        kernels += found
    failures = failures_of(kernels)
    for failure in failures:
        print("FAILED", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
