"""./dev bench peers --model smollm2: a real model in our server and in the peers', one after another on the same two cores. What is
measured of a program is kept in the work folder, so that --only measures some again; prints one Markdown table of all."""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import time

import programs
import table
import workloads

START_SECONDS = 300


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
    except OSError:
        return False


def measure(program, options, result, store):
    """Adds to `result`, which store() keeps after each load."""
    port = free_port()
    values = {"folder": options.folder, "work": options.work_dir, "port": port, "ours": options.build_dir / "sessa-server",
              "threads": options.threads}
    command, environment, flags = programs.fill(program, values)
    log = open(options.results / f"{program.key}.log", "w", encoding="utf-8")
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE if program.in_process else log, stderr=log,
                               text=True, env=environment, start_new_session=True)
    try:
        if program.in_process:
            first = process.stdout.readline() == "first\n"
        else:
            first = False
            while not first and process.poll() is None and time.perf_counter() - begin < START_SECONDS:
                first = answers(port, flags[-1].removeprefix("--model=")) or time.sleep(0.01)
        result["start"] = time.perf_counter() - begin
        if not first:
            raise RuntimeError(f"did not start, see {log.name}")
        if program.in_process:
            result.update(json.loads(process.stdout.readline()))
        else:
            for load in (load for load in workloads.LOADS if not options.loads or load.key in options.loads.split(",")):
                result[load.key] = workloads.run_loadtest(options.build_dir / "sessa-loadtest", load, f"127.0.0.1:{port}",
                                                          options.results / "report.json", flags)
                result["memory"] = memory_of(process.pid)
                store()
        result["memory"] = memory_of(process.pid)
        store()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def cpu():
    """Its name, and those of its instruction sets that matter here."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    field = lambda name: next((line.split(": ")[1] for line in info.splitlines() if line.startswith(name)), "")
    flags = field("flags").split()
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return f"{field('model name') or platform.processor()} ({', '.join(flag for flag in known if flag in flags)})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["smollm2"], required=True)
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="the checkpoint")
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--work_dir", required=True, type=pathlib.Path, help="where the peers are")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="of each program that is measured; medians are kept")
    parser.add_argument("--loads", default="", help="measure these alone, by comma, and keep what is known of the others")
    parser.add_argument("--only", default="", help="programs to measure, by comma; none: the table of what was measured before")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.threads])  # of every program that runs from here
    options.results = options.work_dir / "smollm2"
    options.results.mkdir(parents=True, exist_ok=True)
    keys = [program.key for program in programs.PROGRAMS]
    wanted = keys if options.only == "" else [] if options.only == "none" else options.only.split(",")
    for key in wanted:
        if key not in keys:
            sys.exit(f"--only={key}: there are {', '.join(keys)}")
    for program in programs.PROGRAMS:
        if program.key not in wanted:
            continue
        for number in range(options.rounds):
            print(f"{program.key}, round {number + 1} of {options.rounds}", file=sys.stderr)
            file = options.results / f"{program.key}.json"
            rounds = json.loads(file.read_text()) if number or (options.loads and file.exists()) else []
            result = rounds.pop() if options.loads and rounds else {}
            rounds.append(result)
            try:
                measure(program, options, result, lambda: file.write_text(json.dumps(rounds)))
            except (OSError, RuntimeError) as error:  # one that is not there leaves the others' rows
                print(f"{program.key}: {error}", file=sys.stderr)
                break
    measured = [(program, json.loads((options.results / f"{program.key}.json").read_text())) for program in programs.PROGRAMS
                if (options.results / f"{program.key}.json").exists()]
    table.write([(program, whole) for program, rounds in measured if (whole := [r for r in rounds if table.is_whole(r)])], cpu(), options.threads)


main()
