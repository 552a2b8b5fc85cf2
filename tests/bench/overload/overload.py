"""./dev bench overload: a server with its default limits, first with ever more users until its goodput no longer grows (its
capacity), then with five times the requests that it served then, whatever it answers. Prints a table: each figure beside its limit.

The prompts are text, so that what is refused would have been tokenised. They are of one kind: a scheduler that served only short
ones under overload would seem to gain capacity. What counts as good is an answer within ten seconds of the time at which its
request was due; that is the deadline that each request states.
"""
import argparse
import pathlib

import server as servers

LENGTHS = "256-512,32"
USERS = (16, 32, 64)
SLO = "e2e:10s"
TIMES = 5


def figures(run):
    return run["all"]["figures"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--work_dir", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=180, help="of overload; a third of that for each number of users, warm-up included")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    model = servers.make_model(arguments.work_dir / f"model-{arguments.hidden}-{arguments.layers}", arguments.hidden, arguments.layers)
    common = (f"--lengths={LENGTHS}", f"--slo={SLO}", "--prompt_as=text")
    with servers.Server(arguments.build_dir, model) as server:
        run = lambda *flags: servers.load(arguments.build_dir, server, arguments.work_dir, *common, *flags)
        capacities = {}
        for users in USERS:
            capacities[users] = run(f"--users={users}", f"--duration_seconds={arguments.seconds // 3}", "--warmup_seconds=10",
                                    "--cooldown_seconds=1")
            server.idle()
        capacity = max(capacities.values(), key=lambda run: figures(run)["goodput"])
        ended_before, received_before = server.outcomes()
        before = server.resident_mib()
        rate = TIMES * figures(capacity)["requests_per_second"]
        with servers.Watcher(server) as watcher:
            overload = run(f"--rate={rate:.3f}", f"--duration_seconds={arguments.seconds}", "--cooldown_seconds=1",
                           '--extra_body={"timeout": 10}')
        server.idle()
        ended, received = server.outcomes()
    counted = {name: int(ended[name] - ended_before.get(name, 0)) for name in ended}
    sent = overload["all"]["requests"] + overload["window"]["requests_outside"]
    goodput, at_capacity = figures(overload)["goodput"], figures(capacity)["goodput"]
    third = len(watcher.resident) // 3
    late, early = max(watcher.resident[-third:]), max(watcher.resident[:third])

    print("| users without pause | requests/s | goodput/s | output tokens/s |\n|---|---|---|---|")
    for users, found in capacities.items():
        print(f"| {users} | {figures(found)['requests_per_second']:.2f} | {figures(found)['goodput']:.2f} | "
              f"{figures(found)['output_tokens_per_second']:.0f} |")
    print(f"\nThen {rate:.1f} requests/s for {arguments.seconds} s.\n")
    print("| | achieved | limit |\n|---|---|---|")
    print(f"| goodput, answers within 10 s | {goodput:.2f}/s, {100 * goodput / at_capacity:.0f} % of capacity's {at_capacity:.2f}/s "
          "| at least 90 % |")
    print(f"| output tokens/s | {figures(overload)['output_tokens_per_second']:.0f} | |")
    latencies = overload["all"]["latencies"]
    print(f"| of those served: TTFT p50, p99 | {latencies['ttft']['p50']:.2f} s, {latencies['ttft']['p99']:.2f} s | |")
    print(f"| of those served: worst token to token p99 | {1e3 * latencies['itl']['p99']:.0f} ms | |")
    print("| requests by outcome | " + ", ".join(f"{name} {count}" for name, count in counted.items() if count) + " | |")
    print(f"| requests sent, received, with an outcome | {sent}, {int(received - received_before)}, {sum(counted.values())} | equal |")
    for path, seconds in watcher.seconds.items():
        print(f"| `{path}` p50, p99 of {len(seconds)} | {1e3 * servers.percentile(seconds, 0.5):.1f} ms, "
              f"{1e3 * servers.percentile(seconds, 0.99):.1f} ms | p99 at most 100 ms |")
    print(f"| probes that failed | {watcher.failed} | 0 |")
    print(f"| resident memory: before, first and last third of the overload at most | {before:.0f}, {early:.0f}, {late:.0f} MiB | flat |")


if __name__ == "__main__":
    main()
