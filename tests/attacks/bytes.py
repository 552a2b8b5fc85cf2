#!/usr/bin/env python3
"""How much memory clients can make a server hold: answers that are far larger than their requests, answers that nobody reads,
bodies that never end. Each attack runs against a server of its own with models/demo and the default limits. Prints a Markdown
table, a line for each figure: what was seen and the bound that it stands beside.

    tests/attacks/bytes.py --build_dir build/release [--bodies 500] [--readers 100]
"""
import argparse
import http.client
import json
import pathlib
import re
import socket
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench" / "overload"))
from server import Server  # noqa: E402

MIB = 1 << 20


def post(address, path, body):
    """(status, bytes of the answer, its beginning); what comes is not kept."""
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request("POST", path, body if isinstance(body, str) else json.dumps(body),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        size, first = 0, b""
        while piece := reply.read(1 << 16):
            first = first or piece[:1000]
            size += len(piece)
        return reply.status, size, first.decode(errors="replace")
    finally:
        connection.close()


def completion(address, body):
    return post(address, "/v1/completions", body)


def echo(num_prompts, n=16, num_ids=4000):
    return {"prompt": [[7] * num_ids] * num_prompts, "n": n, "echo": True, "logprobs": 20, "max_tokens": 1}


class Memory:
    """What a process holds beyond what it held when this was made, in MiB."""

    def __init__(self, server):
        self.status = pathlib.Path(f"/proc/{server.process.pid}/status")
        pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = self.read("VmRSS")

    def read(self, name):
        return int(re.search(rf"^{name}:\s+(\d+) kB$", self.status.read_text(), re.M)[1]) / 1024

    def peak(self):
        return self.read("VmHWM") - self.before

    def now(self):
        return self.read("VmRSS") - self.before


def metric(server, name):
    return float(re.search(rf"^{name}(?:\{{.*?\}})? (\S+)$", server.get("/metrics")[1], re.M)[1])


def row(what, value, limit):
    print(f"| {what} | {value} | {limit} |", flush=True)


def leave(server, sockets, memory):
    """All clients go; what the server keeps."""
    for client in sockets:
        client.close()
    server.idle()
    row("kept afterwards", f"{memory.now():.0f} MiB", "")


def most_prompts(server, limits, n, num_ids):
    """How many prompts of one echo are taken, by the size that the refusal of too many names."""
    text = completion(server.address, echo(64, n, num_ids))[2]
    return int(limits["max_answer_bytes"] / (int(re.search(r"may come to (\d+) bytes", text)[1]) / 64))


def large_answers(start):
    """A small request with an enormous answer: refused. The largest that is admitted: its memory beside its size."""
    with start() as server:
        limits, memory = json.loads(server.get("/v1/limits")[1]), Memory(server)
        body = json.dumps(echo(24))
        status, _, text = completion(server.address, body)
        bound = int(re.search(r"may come to (\d+) bytes", text)[1])
        row(f"24 prompts of 4000 ids, n 16, echo, logprobs 20 ({len(body) // 1000} KB): status, how large its answer may be",
            f"{status}, {bound / MIB:.0f} MiB", f"400 above {limits['max_answer_bytes'] // MIB} MiB")
        row("peak memory while it was judged", f"{memory.peak():.0f} MiB", f"{len(body) / MIB:.1f} MiB of body")
    for n, name in ((16, "16 choices of each prompt"), (1, "one choice of each prompt")):
        with start("--max_answer_bytes=16777216") as server:
            limits = json.loads(server.get("/v1/limits")[1])
            completion(server.address, echo(1, 1, 4000))  # what the first request makes once is not the answer's
            num_ids = 1000 if n > 1 else 4000
            num = most_prompts(server, limits, n, num_ids)
            memory = Memory(server)
            status, size, _ = completion(server.address, echo(num, n, num_ids))
            row(f"the largest echo that is taken under --max_answer_bytes of 16 MiB, {name}: status, peak memory",
                f"{status}, {memory.peak():.1f} MiB", f"{size / MIB:.1f} MiB of answer")


def unread_answers(start, num_clients):
    """Clients that ask for megabytes and never read."""
    with start() as server:
        limits = json.loads(server.get("/v1/limits")[1])
        tokens = json.loads((ROOT / "models" / "demo" / "tokenizer.json").read_text())["model"]["vocab"]
        longest = max(tokens, key=len)
        body = json.dumps({"tokens": [tokens[longest]] * 800_000})
        size = post(server.address, "/detokenize", body)[1]
        memory, sockets = Memory(server), []
        head = ("POST /detokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n")
        host, port = server.address.rsplit(":", 1)
        begin = time.monotonic()
        for _ in range(num_clients):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            client.sendall((head + body).encode())
            sockets.append(client)
        statuses, slowest, most, held = [], 0.0, 0.0, 1.0
        while held > 0 and time.monotonic() - begin < 300:
            asked = time.monotonic()
            statuses.append(completion(server.address, {"prompt": [7], "max_tokens": 1})[0])
            slowest = max(slowest, time.monotonic() - asked)
            held = metric(server, "sessa_buffered_bytes")
            most = max(most, held)
            time.sleep(0.25)
        row(f"{num_clients} clients that never read a text of {size / MIB:.0f} MiB each: held at most, as counted", f"{most / MIB:.0f} MiB",
            f"{limits['max_buffered_bytes'] // MIB} MiB")
        row("peak memory", f"{memory.peak():.0f} MiB", f"{num_clients * size / MIB:.0f} MiB were asked for")
        row("until nothing of it was held", f"{time.monotonic() - begin:.0f} s", "60 s for each 64 KiB")
        row("others' short requests meanwhile: served, slowest", f"{statuses.count(200)} of {len(statuses)}, {slowest:.2f} s", "")
        leave(server, sockets, memory)


def open_bodies(start, num_bodies):
    """Bodies that lack their last byte."""
    with start() as server:
        limits = json.loads(server.get("/v1/limits")[1])
        memory, sockets = Memory(server), []
        size = limits["max_body_bytes"]
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        data = head.encode() + b" " * (size - 1)
        host, port = server.address.rsplit(":", 1)
        refused, begin, served, tries, short, most = 0, time.monotonic(), 0, 0, [], 0.0
        honest = json.dumps({"prompt": [7] * 400_000, "max_tokens": 1, "truncate_prompt_tokens": 1})  # 1.2 MB
        for i in range(num_bodies):
            client = socket.create_connection((host, int(port)), timeout=20)
            try:
                client.sendall(data)
                client.settimeout(0.001)
                refused += client.recv(12)[9:12] == b"503"
            except (TimeoutError, BlockingIOError):
                pass
            except OSError:
                refused += 1
            sockets.append(client)
            if i % 25 == 24:
                most = max(most, metric(server, "sessa_buffered_bytes"))
                short.append(completion(server.address, {"prompt": [7], "max_tokens": 1})[0])
                for _ in range(10):
                    tries += 1
                    try:
                        if completion(server.address, honest)[0] == 200:
                            served += 1
                            break
                    except OSError:
                        pass
                    time.sleep(0.5)
        seconds = time.monotonic() - begin
        row(f"{num_bodies} bodies of {size} bytes less one, kept open ({seconds:.0f} s): held at most, as counted",
            f"{most / MIB:.0f} MiB", f"{limits['max_buffered_bytes'] // 2 // MIB} MiB")
        row("peak memory", f"{memory.peak():.0f} MiB", f"{num_bodies * size // MIB} MiB were sent")
        row("of them refused at once", refused, "")
        row("an honest body of 1.2 MB meanwhile: served, tries", f"{served} of {num_bodies // 25}, {tries}", "")
        row("short requests meanwhile: served", f"{short.count(200)} of {len(short)}", "")
        leave(server, sockets, memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build_dir", type=pathlib.Path, default=ROOT / "build" / "release")
    parser.add_argument("--bodies", type=int, default=500)
    parser.add_argument("--readers", type=int, default=100)
    options = parser.parse_args()
    print("| attack | seen | beside |\n|---|---|---|")

    def start(*flags):
        return Server(options.build_dir, ROOT / "models" / "demo", "--access_log=off", "--max_queue_seconds=0", *flags)

    large_answers(start)
    unread_answers(start, options.readers)
    open_bodies(start, options.bodies)


if __name__ == "__main__":
    main()
