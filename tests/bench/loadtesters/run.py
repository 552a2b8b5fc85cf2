"""./dev bench loadtesters: the same load by GuideLLM, AIPerf and sessa-loadtest, one after another on one run of a server, beside
what the server itself measured of each. The server has one core, the load tester the other. Prints Markdown.

Three loads: a trace with Poisson arrivals (open loop) and users without pause (closed loop), both on sessa-server with random
weights; and many streams of a server that follows a script, where every figure is known.
"""
import argparse
import json
import os
import pathlib
import sys

import figures
import servers
import tools
import workload

SERVER_CORE, CLIENT_CORE = "0", "1"  # where the server may use both, AIPerf's processes slowed it by 70 %
FIRST_TOKEN_MS, BETWEEN_MS = 100, 10  # of the script


def loads(quick):
    count = 12 if quick else 48
    yield ("Open loop", f"{count} requests, Poisson at 1/s, 64 to 512 tokens in, 32 to 96 out",
           tools.Load(workload.rows(count, 1, (64, 512), (32, 96))))
    yield ("Closed loop", f"6 users without pause, {count} requests, 256 tokens in, 64 out",
           tools.Load(workload.rows(count, 1, (256, 256), (64, 64), seed=2), users=6))


def streams_of(quick):
    return (8,) if quick else (8, 64, 256)


def compare(server_of, load, programs, work_dir, only):
    """{tool: (its figures, the server's)}. server_of(): begins a run and returns its server."""
    made = {}
    for name, run in tools.TOOLS.items():
        if only and only not in name:
            continue
        server = server_of()
        server.begin()
        said = run({**programs, "model_name": server.model_name}, server.address, load, tools.clean(work_dir / name.split()[0]),
                   CLIENT_CORE)
        made[name] = (said, server.figures())
    return made


def cell(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def percent(value, reference):
    off = figures.difference(value, reference)
    return "" if off is None else f"{off:+.1f} %"


FIGURES = (("ttft", "TTFT", "TTFT ms", 1), ("itl", "ITL", "ITL ms", 2), ("rate", "tokens/s", "tokens/s", 1))


def table(made, truth):
    """Each cell: what the tool says, and in brackets what `truth` says of the same requests."""
    heads = [f"{head} ({truth}) | off by" for _, _, head, _ in FIGURES]
    print(f"| load tester | requests (failed) | {' | '.join(heads)} | TTFT p50, p99 ms | TPOT ms |")
    print("|---" * (4 + 2 * len(FIGURES)) + "|")
    for name, (said, own) in made.items():
        cells = [name, f"{said.requests} ({said.failed})"]
        for field, _, _, digits in FIGURES:
            value, reference = getattr(said, field), getattr(own, field)
            cells += [f"{cell(value, digits)} ({cell(reference, digits)})", percent(value, reference)]
        cells += [f"{cell(said.ttft_p50, 1)}, {cell(said.ttft_p99, 1)}", cell(said.tpot, 2)]
        print("| " + " | ".join(cells) + " |")
    print()
    is_noisy = truth == "the server's"  # the script is the same in every run: there the columns say it all
    for name in list(made)[:-1] if is_noisy and "sessa-loadtest" in made else ():
        print(f"sessa-loadtest beside {name}: {beside(made['sessa-loadtest'], made[name])}.\n")
    for name, (said, _) in made.items():
        if said.warning:
            print(f"{name} itself: {said.warning}\n")
    sys.stdout.flush()


def beside(ours, theirs):
    """As they stand, and with each divided by what the server measured of the same requests, for the server is not equally fast
    in every run."""
    parts = []
    for field, name, _, _ in FIGURES:
        ratio = [getattr(said, field) / getattr(own, field) for said, own in (ours, theirs)]
        parts.append(f"{name} {percent(*ratio)} (as printed {percent(getattr(ours[0], field), getattr(theirs[0], field))})")
    return ", ".join(parts)


def load_name(model):
    config = json.loads((model / "config.json").read_text())
    return f"random weights, D {config['hidden_size']}, {config['num_hidden_layers']} layers, bf16"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build_dir", required=True, type=pathlib.Path, help="where sessa-server and sessa-loadtest were built")
    parser.add_argument("--work_dir", required=True, type=pathlib.Path, help="where the venvs of the others are; results go there too")
    parser.add_argument("--only", default="", help="a part of a load tester's name")
    parser.add_argument("--load", default="", help="a part of a load's name: open, closed or script")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests, to see that all of it runs")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("needs two cores: one for the server, one for the load tester")
    work_dir, build_dir = arguments.work_dir.resolve(), arguments.build_dir.resolve()
    programs = {"guidellm": work_dir / "guidellm" / "bin" / "guidellm", "aiperf": work_dir / "aiperf" / "bin" / "aiperf",
                "ours": build_dir / "sessa-loadtest"}
    model, runs = work_dir / "model", work_dir / "runs"
    servers.make_model(model)
    servers.make_hub(runs / "hf", model)

    for title, what, load in loads(arguments.quick):
        if arguments.load.lower() not in title.lower():
            continue
        server = servers.SessaServer(build_dir / "sessa-server", model, SERVER_CORE, threads=1)
        print(f"**{title}**: {what}; sessa-server with {load_name(model)}\n")
        try:
            table(compare(lambda: server, load, programs, runs, arguments.only), "the server's")
        finally:
            server.stop()
    for streams in streams_of(arguments.quick) if arguments.load.lower() in "scripted" else ():
        trace = workload.rows(3 * streams, 1, (64, 64), (200, 200), seed=3)
        print(f"**Scripted**: {streams} streams at once, 64 tokens in, 200 out, first token after {FIRST_TOKEN_MS} ms, then one each "
              f"{BETWEEN_MS} ms\n")
        script = lambda: servers.ScriptedServer(build_dir / "sessa-scripted-server", SERVER_CORE, FIRST_TOKEN_MS, BETWEEN_MS)
        table(compare(script, tools.Load(trace, streams), programs, runs, arguments.only), "the script's")


if __name__ == "__main__":
    main()
