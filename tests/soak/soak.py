"""./dev soak [seconds]: the real server under mixed load for as long as it is told, in rounds; hours are fine. Each round is
REST and gRPC at once: users of two tenants, conversations, shared prefixes, long prompts, cancelled streams, bad requests and
clients that vanish; then it lets the server become idle and looks. Fails when a request is not accounted for, a page, descriptor
or thread is left, memory grows, or the engine stands still while it has work. Prints a line a round and a table of what it saw.
"""
import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
STALL_SECONDS = 20  # without a token while requests run; a step takes 0.1 s
GROWTH_MIB = 24  # of resident memory from the first rounds to the last: what an allocator moves to and fro


class Watcher(threading.Thread):
    """Scrapes the server once a second: is it alive, does it get on, how much does it hold at most?"""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stop = server, threading.Event()
        self.problems, self.peak_mib, self.probes, self.slowest = [], 0.0, 0, 0.0

    def run(self):
        moved_at, last = time.monotonic(), -1.0
        while not self.stop.wait(1):
            begin = time.monotonic()
            status = self.server.request("GET", "/livez")[0]
            metrics = self.server.metrics()
            now = time.monotonic()
            self.probes += 1
            self.slowest = max(self.slowest, now - begin)
            self.peak_mib = max(self.peak_mib, metrics["process_resident_memory_bytes"] / 2**20)
            tokens = metrics["sessa_generation_tokens_total"] + metrics["sessa_steps_total"]
            if tokens != last or metrics["sessa_num_requests_running"] == 0:
                moved_at, last = now, tokens
            if status != 200:
                self.problems.append(f"/livez says {status}")
            if now - moved_at > STALL_SECONDS:
                self.problems.append(f"requests run and nothing has moved for {now - moved_at:.0f} s")


def make_key(binary, fields):
    """(a new key, the line of the key file that holds its hash)"""
    made = subprocess.run([binary, f"--make_key={fields}"], capture_output=True, text=True, timeout=60, check=True)
    return made.stderr.split()[-1], made.stdout


def vanish(server, key, stop):
    """Clients that leave at each point of a request, and some that send nonsense, until told to stop."""
    host, port = server.http_address.rsplit(":", 1)
    body = json.dumps({"prompt": "Maya said", "max_tokens": 200, "ignore_eos": True, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n" \
           f"Authorization: Bearer {key}\r\n\r\n"
    request = (head + body).encode()
    nonsense = [b"\x16\x03\x01\x00", b"GET / HTTP/9.9\r\n\r\n", request.replace(b"200", b"\"x\""), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    for i in range(10**9):
        if stop.wait(0.05):
            return
        with socket.create_connection((host, int(port)), 60) as connection:
            connection.settimeout(60)
            if i % 3 == 0:
                connection.sendall(nonsense[i // 3 % len(nonsense)])
                connection.recv(100)
            else:
                connection.sendall(request[:len(request) if i % 3 == 1 else i % len(request)])
                if i % 3 == 1:
                    connection.recv(1 + i % 5000)


def held(server):
    """What an idle server holds. Waits until every request has its outcome."""
    end = time.monotonic() + 120
    while True:
        metrics = server.metrics()
        received = sum(v for k, v in metrics.items() if k.startswith("sessa_requests_received_total"))
        ended = {k.split('"')[-2]: v for k, v in metrics.items() if k.startswith("sessa_requests_total")}
        accounted = received == sum(ended.values()) and metrics["sessa_num_requests_in_flight"] == 0
        if accounted and metrics["sessa_num_requests_running"] == metrics["sessa_state_cache_usage_ratio"] == 0:
            break
        if time.monotonic() > end:
            raise AssertionError(f"received {received}, ended {ended}, {metrics['sessa_num_requests_in_flight']} in flight, "
                                 f"{metrics['sessa_state_cache_usage_ratio']} of the pages used")
        time.sleep(0.05)
    return {"received": received, "ended": ended, "files": metrics["process_open_fds"],
            "threads": len(os.listdir(f"/proc/{server.process.pid}/task")),
            "mib": metrics["process_resident_memory_bytes"] / 2**20, "tokens": metrics["sessa_generation_tokens_total"]}


def load(binary, server, key, folder, seconds, seed):
    """One round of both protocols at once."""
    common = [f"--duration_seconds={seconds}", "--cancel_share=0.2", f"--tenants_file={folder}/tenants", "--noprogress",
              "--metrics_url=none", f"--seed={seed}", "--prefixes=3", "--prefix_tokens=64", "--prefix_share=0.5", "--turns=1-3",
              "--lengths=80-256,4-64:12;512-1024,16:2", "--max_send_lag_ms=1e6", "--max_loop_lag_ms=1e6",
              "--max_cpu_share=1000", "--probe_rate=1"]
    commands = [[binary, f"--url=http://{server.http_address}", "--users=6", *common],
                [binary, f"--url=http://{server.http_address}", "--rate=2", "--api=chat", "--prompt_as=text", *common],
                [binary, f"--url=grpc://{server.grpc_address}", "--users=4", *common]]
    stop = threading.Event()
    vanishing = threading.Thread(target=vanish, args=(server, key, stop))
    vanishing.start()
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for command in commands]
    outputs = [run.communicate()[0] for run in runs]
    stop.set()
    vanishing.join()
    for command, run, output in zip(commands, runs, outputs):
        if run.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: exit code {run.returncode}\n{output}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--round_seconds", type=float, default=20)
    arguments = parser.parse_args()
    os.environ.setdefault("SESSA_ROOT", str(pathlib.Path(__file__).resolve().parent.parent.parent))
    os.environ.setdefault("SESSA_SERVER_BINARY", str(arguments.build_dir / "sessa-server"))
    from server_process import ServerProcess  # after the two that it asks for

    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        (key_a, line_a), (key_b, line_b) = (make_key(arguments.build_dir / "sessa-server", f) for f in ("a weight=2", "b"))
        pathlib.Path(folder, "keys").write_text(line_a + line_b, encoding="ascii")
        pathlib.Path(folder, "tenants").write_text(f"{key_a} a 2\n{key_b} b 1\n", encoding="ascii")
        server = ServerProcess(f"--api_keys_file={folder}/keys", "--max_num_seqs=16", "--state_cache_bytes=33554432")
        watcher = Watcher(server)
        try:
            watcher.start()
            begin = time.monotonic()
            while time.monotonic() - begin < arguments.seconds or len(rounds) < 3:
                load(arguments.build_dir / "sessa-loadtest", server, key_a, folder,
                     min(arguments.round_seconds, max(1, arguments.seconds / 4)), len(rounds) + 1)
                rounds.append(held(server))
                print(f"{time.monotonic() - begin:7.0f} s: {rounds[-1]['received']:.0f} requests, {rounds[-1]['tokens']:.0f} tokens, "
                      f"{rounds[-1]['mib']:.0f} MiB, {rounds[-1]['files']:.0f} files, {rounds[-1]['threads']} threads", flush=True)
                if watcher.problems or not watcher.is_alive():
                    raise AssertionError(f"{watcher.problems[:3] or 'a probe failed'}")
        finally:
            watcher.stop.set()
            watcher.join()
            code = server.stop()
    if code != 0:
        raise AssertionError(f"the server ended with {code}")
    # Rounds; in the first ones caches fill, and gRPC's executor starts threads, up to two a core, when work piles up.
    third = max(1, len(rounds) // 3)
    early, late = ({name: max(r[name] for r in part) for name in ("mib", "files", "threads")}
                   for part in (rounds[:third + 1], rounds[-third:]))
    for name, growth in (("mib", GROWTH_MIB), ("files", 2), ("threads", 2 * os.cpu_count())):
        if late[name] > early[name] + growth:
            raise AssertionError(f"{name}: {early[name]:.0f} in the first third of the rounds at most, {late[name]:.0f} in the last")
    seconds = time.monotonic() - begin
    print(f"\n| soaked | {seconds / 3600:.2f} h |\n|---|---|\n| requests | {rounds[-1]['received']:.0f}, each with one outcome: "
          + ", ".join(f"{name} {count:.0f}" for name, count in rounds[-1]["ended"].items() if count) + " |\n"
          f"| tokens | {rounds[-1]['tokens']:.0f} |\n| resident memory, idle: first, last third of the rounds | {early['mib']:.0f}, {late['mib']:.0f} MiB |\n"
          f"| resident memory at most, while loaded | {watcher.peak_mib:.0f} MiB |\n"
          f"| descriptors, threads, idle: first, last third at most | {early['files']:.0f}, {late['files']:.0f}; {early['threads']}, {late['threads']} |\n"
          f"| probes (`/livez` and `/metrics`), slowest pair | {watcher.probes}, {1e3 * watcher.slowest:.0f} ms |")


if __name__ == "__main__":
    main()
