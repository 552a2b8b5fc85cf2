"""./dev scale: three replicas of the demo model behind sglang-router, vllm-router and Envoy, under sessa-loadtest: what of the prompts
each policy finds in the replicas' prefix caches, and what becomes of the requests when a replica is killed, drained, or all are replaced.
Prints the tables of docs/scale.md. Everything listens on the loopback and ends by itself."""
import argparse
import contextlib
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

REPLICAS = 3
ROUTERS = ("sglang-router", "vllm-router")

# Prefix caches: more prefixes than one replica's cache holds, and fewer than all three hold.
PREFIXES = ("--lengths=288,16", "--prefixes=24", "--prefix_tokens=256", "--users=6")
CACHE = "--state_cache_bytes=24MiB"
# Failures: answers long enough that a few are on their way whatever happens when.
STREAMS = ("--rate=8", "--lengths=24,300", "--arrivals=constant")


def lines_of(head, rows):
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(map(str, row))} |" for row in rows)]


class Run:
    """sessa-loadtest on a gateway, in the background: requests as its CSV has them."""

    def __init__(self, loadtest, url, work, flags):
        self.csv, self.json = work / "requests.csv", work / "report.json"
        texts = () if url.startswith("grpc") else ("--model=demo", "--prompt_as=text", "--noreturn_token_ids")
        self.process = subprocess.Popen([loadtest, f"--url={url}", "--noprogress", "--metrics_url=none", "--vocab_size=1024", *texts,
                                         f"--csv={self.csv}", f"--json={self.json}", *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def requests(self):
        out = self.process.communicate(timeout=300)[0]
        if self.process.returncode not in (0, 3):  # 3: this client lagged, on cores that it shares with all the rest
            raise RuntimeError(out)
        with open(self.csv, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def group(self):
        return json.loads(self.json.read_text())["runs"][0]["all"]


@contextlib.contextmanager
def cluster_of(cluster, name, policy, options, *flags):
    """(replicas, gateway, what counts the replicas that it holds for healthy)"""
    with cluster.replicas(REPLICAS, *flags) as members, tempfile.TemporaryDirectory() as work:
        if name == "Envoy":
            gateway, known = cluster.envoy(options.binaries, members, options.work_dir), cluster.healthy_of_envoy
        else:
            gateway, known = cluster.router(name, policy, options.binaries, members, options.work_dir), cluster.healthy_of_router
        try:
            gateway.wait(known, REPLICAS)
            yield members, gateway, known, pathlib.Path(work)
        finally:
            gateway.stop()


def prefix_rows(cluster, options):
    requests = 60 if options.quick else 480
    for name, policy in [*((router, policy) for router in ROUTERS for policy in ("round_robin", "cache_aware")), ("vllm-router", "kv_aware"),
                         ("Envoy", "least_request")]:
        if options.only not in ("", name):
            continue
        with cluster_of(cluster, name, policy, options, CACHE) as (members, gateway, _, work):
            run = Run(options.loadtest, gateway.url, work, [*PREFIXES, f"--num_requests={requests}"])
            failed = sum(request["outcome"] != "ok" for request in run.requests())
            looked_up, found = map(sum, zip(*(member.prefix_tokens() for member in members)))
            ttft, figures = run.group()["latencies"]["ttft"], run.group()["figures"]
            yield [name, policy, f"{100 * found / looked_up:.0f} %", f"{1e3 * ttft['p50']:.0f}", f"{1e3 * ttft['p99']:.0f}",
                   f"{figures['requests_per_second']:.1f}", failed]


def kill(members, gateway, known):
    time.sleep(4)
    members[0].kill()
    time.sleep(6)
    members[0].start()
    gateway.wait(known, REPLICAS)


def drain(members, gateway, known):
    time.sleep(4)
    members[1].drain()
    members[1].start()
    gateway.wait(known, REPLICAS)


def replace_all(members, gateway, known):
    time.sleep(2)
    for member in members:
        member.drain()
        member.start()
        gateway.wait(known, REPLICAS)


# What happens, and for how many seconds requests come.
EVENTS = ((kill, "one killed, and started again", 16), (drain, "one drained, and started again", 16), (replace_all, "all replaced in turn", 32))


def outcomes(requests):
    """(answered, broken off in an answer, lost before a token)"""
    ok = sum(request["outcome"] == "ok" for request in requests)
    broken = sum(request["outcome"] != "ok" and int(request["events"]) > 0 for request in requests)
    return ok, broken, len(requests) - ok - broken


def event_rows(cluster, options):
    for name, grpc in [*((router, False) for router in ROUTERS), ("Envoy", False), ("Envoy", True)]:
        if options.only not in ("", name):
            continue
        for event, told, seconds in EVENTS[:1] if options.quick else EVENTS:
            with cluster_of(cluster, name, "cache_aware", options) as (members, gateway, known, work):
                run = Run(options.loadtest, gateway.grpc if grpc else gateway.url, work, [*STREAMS, f"--duration_seconds={seconds}"])
                event(members, gateway, known)
                requests = run.requests()
                ok, broken, lost = outcomes(requests)
                why = sorted({f"{request['outcome']} {request['status']}" for request in requests if request["outcome"] != "ok"})
                slowest = max(float(request["ttft"]) for request in requests if request["ttft"])
                yield [f"{name}, {'gRPC' if grpc else 'REST'}", told, len(requests), ok, broken, lost, f"{1e3 * slowest:.0f}", ", ".join(why)]


TABLES = {
    "prefixes": (("gateway", "policy", "prompt tokens found in a cache", "TTFT p50, ms", "p99, ms", "requests/s", "failed"), prefix_rows),
    "events": (("gateway", "what happens", "requests", "answered", "broken off in an answer", "lost before a token", "longest TTFT, ms",
                "as the client saw it"), event_rows),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--binaries", required=True, type=pathlib.Path, help="bin of the Python with requirements.txt")
    parser.add_argument("--work_dir", required=True, type=pathlib.Path, help="for logs")
    parser.add_argument("--table", choices=TABLES, required=True)
    parser.add_argument("--only", choices=("", *ROUTERS, "Envoy"), default="", help="this gateway alone")
    parser.add_argument("--quick", action="store_true", help="whether it all runs")
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    os.environ.update(SESSA_ROOT=str(root), SESSA_SERVER_BINARY=str(options.build_dir / "sessa-server"))
    import cluster  # after the environment that it reads
    options.loadtest = options.build_dir / "sessa-loadtest"
    options.work_dir.mkdir(parents=True, exist_ok=True)
    head, rows = TABLES[options.table]
    done = []
    for row in rows(cluster, options):
        print(*row, sep=" | ", file=sys.stderr, flush=True)
        done.append(row)
    print("\n".join(lines_of(head, done)))


if __name__ == "__main__":
    main()
