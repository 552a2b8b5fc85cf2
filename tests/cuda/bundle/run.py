#!/usr/bin/env python3
"""Checks and measures the CUDA backend on this machine's GPU.

    run.sh [--device cpu] [--limit STEP=SECONDS] [STEP...]

Steps: start conformance reference recall (together: right), probe kernels memcheck racecheck (fast), steps variants peers load nccl
profile (rest), all_kernels. Without any: right fast rest, within ten minutes. --device cpu: what can be checked without a GPU, in
ten times the time.

Each step ends at its time limit, and one that fails or hangs does not stop the others. Everything is in a new folder of $OUT, or
of out/ beside this file, as it comes: the output of each program, *.csv, and last summary.txt, which is printed too. Exit code: how
many steps failed; 2 at arguments that are none.
"""
from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

import processes
import steps

MAX_SUMMARY = 11000  # characters: with what goes before it, under 12 000
HERE = pathlib.Path(__file__).resolve().parent


def new_folder(out):
    """out/run-001, or the next that is not there: another run's results stay."""
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = out / f"run-{number:03}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def environment_of(out):
    """Our programs find their own libraries by themselves; CUDA's are this machine's. The driver's library may be where only
    LD_LIBRARY_PATH says so, or in a folder that no cache knows."""
    wanted = (HERE / "cuda_libraries.txt").read_text().split()
    found = subprocess.run([str(HERE / "cuda_libraries.sh"), *wanted], capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit(found.stderr)
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/sbin"})
    driver = "" if "libcuda.so.1" in known.stdout else "/usr/local/nvidia/lib64"
    path = ":".join(filter(None, (found.stdout.strip(), os.environ.get("LD_LIBRARY_PATH"), driver)))
    # The driver's and the library's own words about errors.
    return {**os.environ, "LD_LIBRARY_PATH": path, "CUDA_LOG_FILE": "stderr", "CUBLASLT_LOG_LEVEL": "1", "CUBLASLT_LOG_FILE": str(out / "cublaslt.log")}


def summary_of(verdicts, table):
    """The verdicts last: where only the end of what is printed is kept, they are in it. Failures count for more than the table."""
    lines = []
    for name, verdict, seconds, note, said in verdicts:
        lines.append(f"{verdict:8} {name:12} {seconds:4.0f} s  {note}".rstrip())
        lines += [f"         {line}" for line in said]
    text = "\n".join(lines)[:MAX_SUMMARY]
    kept, room = [], MAX_SUMMARY - len(text) - 100
    for line in table:
        room -= len(line) + 1
        if room < 0:
            kept.append(f"... {len(table) - len(kept)} lines more are in table.txt")
            break
        kept.append(line)
    return "\n".join([*kept, text]) + "\n"


def table_of(out, environment):
    """Our times and PyTorch's, as far as they were measured."""
    measured = [path for path in (out / "kernels.csv", out / "all_kernels.csv", out / "steps.csv") if path.exists()]
    if not measured and not (out / "peers.json").exists():
        return []
    made = subprocess.run([sys.executable, "-B", str(HERE / "tests/bench/peers/peer_table.py"), "--peers", str(out / "peers.json"), "--csv",
                           str(out / "table.csv"), *map(str, measured)], capture_output=True, text=True, env=environment)
    (out / "table.txt").write_text(made.stdout + made.stderr)
    return made.stdout.splitlines()


def steps_of(name):
    if name not in steps.STEPS and name not in steps.GROUPS_OF_STEPS:
        raise argparse.ArgumentTypeError(f"no step {name}; there are: {' '.join((*steps.STEPS, *steps.GROUPS_OF_STEPS))}")
    return steps.GROUPS_OF_STEPS.get(name, (name,))


def limit_of(text):
    name, _, seconds = text.partition("=")
    if name not in steps.STEPS and name != "diagnose":
        raise argparse.ArgumentTypeError(f"no step {name}")
    return name, float(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=limit_of, action="append", default=[], metavar="STEP=SECONDS")
    parser.add_argument("steps", nargs="*", type=steps_of, metavar="STEP")
    arguments = parser.parse_args()
    names = [name for group in arguments.steps or steps.GROUPS_OF_STEPS.values() for name in group]
    # Limits save a GPU's minutes. A trial without one may run beside whatever else its machine does.
    patience = 10 if arguments.device == "cpu" else 1
    limits = {name: patience * seconds for name, (seconds, _) in steps.STEPS.items()}
    limits.update({"diagnose": steps.DIAGNOSE_SECONDS}, **dict(arguments.limit))

    out = new_folder(pathlib.Path(os.environ.get("OUT") or HERE / "out"))
    environment = environment_of(out)
    log = (out / "log.txt").open("w")

    def say(line):
        print(line, flush=True)
        print(line, file=log, flush=True)

    background = []
    has_gpu = False
    if arguments.device == "cuda":
        # What else may be wrong with a GPU is for the steps to find.
        has_gpu = processes.run(processes.Command("gpu", [str(HERE / "bin/cuda_bench"), "device"]), 30, environment, out).code != 3
        if shutil.which("nvidia-smi"):  # while somebody holds the device open, the driver does not start it anew for each program
            background.append(processes.Command("held open", ["nvidia-smi", "-l", "30"]))
        if "peers" in names:  # reading PyTorch from a cold disk takes as long as its step
            background.append(processes.Command("torch", ["nice", sys.executable, "-c", "import torch"]))
    running = [processes.start(command, environment, subprocess.DEVNULL) for command in background]
    verdicts = []
    try:
        for name in names:
            say(f"== {name}, at most {limits[name]:g} s")
            run = steps.Run(HERE, out, arguments.device, has_gpu, environment, limits, say)
            begin = time.monotonic()
            run.deadline = begin + limits[name]
            try:
                result = steps.STEPS[name][1](run)
                note = "some were not done in their time" if run.hung and not result.ok else ""
                verdict, said = "ok" if result.ok else "FAILED", result.lines
            except steps.Skip as reason:
                verdict, note, said = "skipped", str(reason), []
            verdicts.append((name, verdict, time.monotonic() - begin, note, said))
            # As they come: whoever ends this run has what was done.
            (out / "summary.txt").write_text(summary_of(verdicts, []))
    finally:
        for process in running:
            processes.end(process)
    summary = summary_of(verdicts, table_of(out, environment))
    (out / "summary.txt").write_text(summary)
    print(f"== summary ({out})\n{summary}", end="")
    sys.exit(sum(verdict == "FAILED" for _, verdict, *_ in verdicts))


if __name__ == "__main__":
    main()
