"""./dev bench peers --model: one model in our server and in the peers', one after another on the same two cores. What is measured of a
program is kept in the work folder, so that --only measures some again; prints one Markdown table of all, and each row when it is there."""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import programs
import registers
import table
import workloads

LOAD_SECONDS = 240  # of one load; sessa-loadtest ends its own, a minute (--drain_seconds) after the last request


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tree(pid):
    """The process and all that it started."""
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def memory_of(pid):
    """Bytes of RAM that the processes have for themselves, and their part of what they share."""
    total = 0
    for process in tree(pid):
        for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
    return total


def answers(port, model):
    """Whether a completion of one token comes back."""
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            body = json.dumps({"model": model, "prompt": "Water boils at", "max_tokens": 1})
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def limits_of(build_dir):
    """Of the machine now: bytes a second that it reads, and float32 FLOPs a second."""
    done = subprocess.run([build_dir / "sessa_bench", "--benchmark_filter=^none$"], capture_output=True, text=True, check=False)
    found = re.search(r"read ([\d.]+) GB/s, float32 FMA ([\d.]+)", done.stdout)
    if not found:
        raise RuntimeError(f"sessa_bench tells no limits: {done.stderr}")
    return [1e9 * float(value) for value in found.groups()]


@contextlib.contextmanager
def running(program, options):
    """The program as it answers: (process, seconds that it took to its first token, figures of a load)."""
    port = free_port()
    values = {"folder": options.work_dir / options.model, "work": options.work_dir, "model": options.model, "port": port,
              "ours": options.build_dir / "sessa-server", "threads": options.threads}
    command, environment, flags = programs.fill(program, values)
    with open(options.results / f"{program.key}.log", "w", encoding="utf-8") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if program.in_process else log, stderr=log,
                                   text=True, env=environment, start_new_session=True)

        def line_within(seconds):
            timer = threading.Timer(seconds, process.kill)
            timer.start()
            try:
                return process.stdout.readline()
            finally:
                timer.cancel()

        is_quick = options.quick or program.slow

        def ask_program(load):
            process.stdin.write(load.key + (" quick\n" if is_quick else "\n"))
            process.stdin.flush()
            return json.loads(line_within(LOAD_SECONDS) or "null") or fail(f"{load.key}: it ended")

        def ask_server(load):
            return workloads.run_loadtest(options.build_dir / "sessa-loadtest", load.quick() if is_quick else load,
                                          f"127.0.0.1:{port}", options.results / "report.json", flags)

        def fail(what):
            raise RuntimeError(f"{what}, see {log.name}")

        try:
            if program.in_process:
                first = line_within(program.start_seconds) == "first\n"
            else:
                first = False
                while not first and process.poll() is None and time.perf_counter() - begin < program.start_seconds:
                    first = answers(port, flags[-1].removeprefix("--model=")) or time.sleep(0.01)
            seconds = time.perf_counter() - begin
            if not first:
                fail(f"it ended with {process.poll()} at start" if process.poll() is not None else f"no answer within {program.start_seconds} s")
            yield process, seconds, ask_program if program.in_process else ask_server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure(program, options, result, store):
    """Adds to `result`, which store() keeps after each load."""
    limits = limits_of(options.build_dir)
    with running(program, options) as (process, seconds, ask):
        result["start"] = seconds
        pids = lambda: list(tree(process.pid))
        for load in (load for load in workloads.LOADS if not options.loads or load.key in options.loads.split(",")):
            with registers.Watch(pids) as watch:
                result[load.key] = ask(load)
            result[load.key]["registers"] = watch.shares
            result["memory"] = memory_of(process.pid)
            store()
    result["limits"] = [(a + b) / 2 for a, b in zip(limits, limits_of(options.build_dir))]
    store()


def measure_rounds(program, options):
    """Measures it, keeps what was measured, and says its row."""
    file = options.results / f"{program.key}.json"
    rounds = json.loads(file.read_text()) if options.loads and file.exists() else []
    for number in range(options.rounds):
        print(f"{program.key}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        result = rounds.pop() if options.loads and rounds else {}
        result.pop("error", None)
        rounds.append(result)
        try:
            measure(program, options, result, lambda: file.write_text(json.dumps(rounds)))
        except (OSError, RuntimeError) as error:  # it costs this row alone
            result["error"] = str(error).strip().splitlines()[-1]
            file.write_text(json.dumps(rounds))
            print(f"{program.key}: {error}", file=sys.stderr)
            break
    ours = [pair for pair in read_all(options) if pair[0].is_ours and pair[0] != program]
    print(table.line_of(program, rounds, ours), file=sys.stderr, flush=True)


def read_all(options):
    """[(program, its rounds)] of the programs that were measured, now or before."""
    return [(program, json.loads(file.read_text())) for program in programs.of_model(options.model)
            if (file := options.results / f"{program.key}.json").exists()]


def cpu():
    """Its name, and those of its instruction sets that matter here."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    field = lambda name: next((line.split(": ")[1] for line in info.splitlines() if line.startswith(name)), "")
    flags = field("flags").split()
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return f"{field('model name') or platform.processor()} ({', '.join(flag for flag in known if flag in flags)})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=programs.MODELS, required=True)
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--work_dir", required=True, type=pathlib.Path, help="where the peers are")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="of each program that is measured; medians are kept")
    parser.add_argument("--loads", default="", help="measure these alone, by comma, and keep what is known of the others")
    parser.add_argument("--only", default="", help="programs to measure, by comma; none: the table of what was measured before")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests: whether all runs, in a table of its own")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that the program that runs is ended too
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])  # of every program that runs from here
    options.results = options.work_dir / f"results-{options.model}{'-quick' if options.quick else ''}"
    options.results.mkdir(parents=True, exist_ok=True)
    known = programs.of_model(options.model)
    keys = [program.key for program in known]
    wanted = keys if options.only == "" else [] if options.only == "none" else options.only.split(",")
    for key in wanted:
        if key not in keys:
            sys.exit(f"--only={key}: there are {', '.join(keys)}")
    for program in known:
        if program.key in wanted:
            measure_rounds(program, options)
    print("\n".join([table.caption(cpu(), options.threads), "", *table.lines(read_all(options))]))


main()
