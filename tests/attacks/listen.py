#!/usr/bin/env python3
"""Attacks on the listeners of a real server with the demo model, and what came of them as a Markdown table.

    SESSA_ROOT=. SESSA_SERVER_BINARY=build/release/sessa-server build/venv/bin/python tests/attacks/listen.py [NAME...]

Names: descriptors, idle, text, long, longer_steps, coded, resets; none: all. Each attack starts a server of its own. A figure stands beside the
limit that the server states for it.
"""
import asyncio
import contextlib
import ctypes
import gzip
import json
import multiprocessing
import os
import pathlib
import resource
import socket
import sys
import tempfile
import threading
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "models"))
import convert  # noqa: E402
from core_watch import CoreWatch  # noqa: E402
import grpc_client  # noqa: E402
from token_reader import TokenReader  # noqa: E402
from server_process import PROMPT, ROOT, ServerProcess, wait_until  # noqa: E402

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = b"/sessa.v1.Generation/Generate"


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def rss_mb(server, field="VmRSS"):
    status = pathlib.Path("/proc", str(server.process.pid), "status").read_text()
    return int(status.split(field + ":")[1].split()[0]) / 1024


def cpu_seconds(server):
    fields = pathlib.Path("/proc", str(server.process.pid), "stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def get(where, path="/livez", timeout=10):
    """(status or None, seconds) of one GET on a connection of its own."""
    begin = time.monotonic()
    try:
        with socket.create_connection(address(where), timeout) as s:
            s.settimeout(timeout)
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = s.recv(4096)
            return int(head[9:12]), time.monotonic() - begin
    except (OSError, ValueError):
        return None, time.monotonic() - begin


class Prober:
    """Asks for /livez and /readyz on both ports, ten times a second, until stopped."""

    def __init__(self, server):
        self.server, self.done = server, threading.Event()
        self.results = {"HTTP port": [], "admin port": []}
        self.threads = [threading.Thread(target=self.run, args=item) for item in
                        (("HTTP port", server.http_address), ("admin port", server.admin_address))]
        for thread in self.threads:
            thread.start()

    def run(self, name, where):
        while not self.done.wait(0.1):
            for path in ("/livez", "/readyz"):
                self.results[name].append(get(where, path))

    def rows(self):
        self.done.set()
        for thread in self.threads:
            thread.join()
        for name, results in self.results.items():
            times = sorted(seconds for _, seconds in results)
            failed = sum(status != 200 for status, _ in results)
            yield (f"probes on the {name}", "all answered, within the kubelet's default of 1 s",
                   f"{len(results)} asked, {failed} failed, p50 {1e3 * times[len(times) // 2]:.0f} ms, "
                   f"p99 {1e3 * times[int(len(times) * 0.99)]:.0f} ms, longest {1e3 * times[-1]:.0f} ms")


def grpc_serving(server):
    channel, _ = grpc_client.connect(server)
    with channel:
        return grpc_client.health(channel) == grpc_client.SERVING


def descriptors():
    """Idle sockets up to a limit of 1024 descriptors, one more for gRPC, all closed."""
    server = ServerProcess(descriptors=1024)
    idle, held = [], 0
    try:
        for _ in range(1015):
            idle.append(socket.create_connection(address(server.http_address)))
        extra = socket.create_connection(address(server.grpc_address))
        during = grpc_serving(server), get(server.http_address)[0], get(server.admin_address)[0]
        held = int(server.metrics()['sessa_connections{listener="http"}'])
        for s in [*idle, extra]:
            s.close()
        after = grpc_serving(server), get(server.http_address)[0], get(server.admin_address)[0]
        yield "1015 idle HTTP sockets, `ulimit -n 1024`: held", "438 and 64 spare", str(held)
        yield "gRPC health, `/livez`, `/livez` (admin) meanwhile", "serving, 200, 200", f"{during}"
        yield "the same after all have closed", "serving, 200, 200", f"{after}"
    finally:
        server.stop()


def idle():
    """More idle keep-alive connections than may be open."""
    server = ServerProcess()
    sockets = []
    try:
        before = rss_mb(server)
        for _ in range(5000):
            s = socket.create_connection(address(server.http_address))
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            s.recv(4096)
            sockets.append(s)
        prober = Prober(server)
        time.sleep(5)
        yield from prober.rows()
        metrics = server.metrics()
        is_open = metrics['sessa_connections{listener="http"}']
        evicted = metrics['sessa_connections_cut_total{listener="http",reason="evicted"}']
        yield "5000 idle keep-alive connections: open, evicted", "4096 and 64 spare", f"{is_open:.0f}, {evicted:.0f}"
        yield "memory, before and with them", "", f"{before:.0f}, {rss_mb(server):.0f} MB"
    finally:
        for s in sockets:
            s.close()
        server.stop()


async def keep_posting(where, path, body, until, statuses, coding="identity"):
    request = (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    while time.monotonic() < until:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(*address(where))
            while time.monotonic() < until:
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                statuses[head[9:12].decode()] = statuses.get(head[9:12].decode(), 0) + 1
                if b"connection: close" in head.lower():
                    break
        except (OSError, asyncio.IncompleteReadError):
            statuses["broken"] = statuses.get("broken", 0) + 1
            await asyncio.sleep(0.1)
        finally:
            if writer:
                writer.close()


def text(seconds=20):
    """Long prompts over 1000 keep-alive connections; then 8 clients of /tokenize beside 4 streams."""
    server = ServerProcess("--max_queue_seconds=0")
    try:
        before = rss_mb(server)
        body = json.dumps({"prompt": (PROMPT * 2000)[:200 << 10], "max_tokens": 1, "truncate_prompt_tokens": 64}).encode()

        async def attack(path, payload, count, statuses):
            until = time.monotonic() + seconds
            await asyncio.gather(*(keep_posting(server.http_address, path, payload, until, statuses) for _ in range(count)))

        statuses = {}
        prober = Prober(server)
        asyncio.run(attack("/v1/completions", body, 1000, statuses))
        yield "1000 connections with prompts of 200 KB", "", f"answers {statuses}"
        yield from prober.rows()
        yield "memory, before and at most", "", f"{before:.0f}, {rss_mb(server, 'VmHWM'):.0f} MB"

        with Streams(server) as streams:
            alone = streams.summary(5)
            statuses = {}
            prober = Prober(server)
            asyncio.run(attack("/tokenize", json.dumps({"prompt": (PROMPT * 2000)[:200 << 10]}).encode(), 8, statuses))
            beside = streams.summary()
        yield "4 streams alone, between tokens", "", alone
        yield "beside 8 clients of `/tokenize`, 200 KB each", "", f"{beside}; answers {statuses}"
        yield from prober.rows()
    finally:
        server.stop()


def long(seconds=10, hidden_size=512, num_layers=8):
    """Four clients at once with texts and JSON of nearly 4 MB, beside 4 streams of a model whose steps take a few ms. Of each the model
    reads one token: a step that reads 64 beside the streams' takes longer for it, with or without a long text."""
    size = (4 << 20) - 1000
    digits, words = "7" * size, (PROMPT * 30000)[:size]
    cut = {"max_tokens": 1, "truncate_prompt_tokens": 1}
    ids = [7] * (size // 3)
    nested = json.dumps({"prompt": "x", "max_tokens": 1, "x": [{"a": [1, "b"]}] * (size // 20)})
    bodies = {"`/tokenize`, words": ("/tokenize", {"prompt": words}), "`/tokenize`, digits": ("/tokenize", {"prompt": digits}),
              "prompts that are cut": ("/v1/completions", {"prompt": words, **cut}), "prompts that cannot fit": ("/v1/completions", {"prompt": digits}),
              "token ids": ("/v1/completions", {"prompt": ids, **cut}), "JSON": ("/v1/completions", nested),
              "chats": ("/v1/chat/completions", {"messages": [{"role": "user", "content": words}], **cut})}
    with random_model(hidden_size, num_layers) as (server, streams):
        with Beside(server, streams) as alone:
            time.sleep(seconds)
        yield "4 streams alone, between tokens", "", alone
        for name, (path, body) in bodies.items():
            payload = (body if isinstance(body, str) else json.dumps(body)).encode()[: 4 << 20]
            yield from four_clients(server, streams, name, path, payload, seconds)


def longer_steps(seconds=10):
    """The same with a model whose steps take some 10 ms."""
    yield from long(seconds, hidden_size=768, num_layers=12)


def coded(seconds=10):
    """Four clients at once with bodies that inflate to nearly 4 MB, or to nothing after much work; a short coded one meanwhile."""
    text = json.dumps({"prompt": (PROMPT * 30000)[:(4 << 20) - 1000], "max_tokens": 1, "truncate_prompt_tokens": 1}).encode()
    assert zlib.decompress(EMPTY_BLOCKS + b"\3\0", wbits=-15) == b""
    nothing = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + EMPTY_BLOCKS * ((4 << 20) // len(EMPTY_BLOCKS) - 1) + b"\3\0" + bytes(8)
    bodies = {"gzip of a prompt": ("gzip", gzip.compress(text)), "zstd of a prompt": ("zstd", zstd(text)), "gzip of nothing": ("gzip", nothing),
              "zstd of nothing": ("zstd", zstd(b"") * ((4 << 20) // len(zstd(b""))))}
    with random_model(hidden_size=512, num_layers=8) as (server, streams):
        for name, (coding, payload) in bodies.items():
            with Repeated(server, gzip.compress(json.dumps({"prompt": PROMPT, "max_tokens": 1}).encode()), "gzip") as short:
                yield from four_clients(server, streams, name, "/v1/completions", payload, seconds, coding)
            yield "a short gzip request meanwhile, one after the other", "", short


# Of deflate: eight blocks with Huffman codes of their own for the end of the block and nothing else.
EMPTY_BLOCKS = int("".join(
    ["0", "01", "00000", "00000", "0111", *["000"] * 2, "100", *["000"] * 14, "100", "1", "1111111", "1", "1101011", "0", "0", "0"] * 8)[::-1],
    2).to_bytes(90, "little")


def zstd(text):
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_compressBound.restype = library.ZSTD_compress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(library.ZSTD_compressBound(ctypes.c_size_t(len(text))))
    size = library.ZSTD_compress(out, ctypes.c_size_t(len(out)), text, ctypes.c_size_t(len(text)), 3)
    return out.raw[:size]


class Repeated:
    """A request to /v1/completions again and again while it is entered, and how long each took."""

    def __init__(self, server, body, coding):
        self.server, self.body, self.headers = server, body, {"Content-Type": "application/json", "Content-Encoding": coding}
        self.times, self.failed, self.done = [], 0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def run(self):
        while not self.done.wait(0.1):
            begin = time.monotonic()
            self.failed += self.server.request("POST", "/v1/completions", self.body, self.headers)[0] != 200
            self.times.append(time.monotonic() - begin)

    def __str__(self):
        ordered = sorted(self.times)
        return f"{len(ordered)} asked, {self.failed} failed, p50 {1e3 * ordered[len(ordered) // 2]:.0f} ms, longest {1e3 * ordered[-1]:.0f} ms"


@contextlib.contextmanager
def random_model(hidden_size, num_layers):
    """A server with random weights, and four streams that it sends a token a step."""
    with tempfile.TemporaryDirectory() as folder:
        convert.run(["random", folder, "--tokenizer", ROOT / "models" / "demo", "--hidden_size", hidden_size, "--num_hidden_layers", num_layers,
                     "--bos_token_id", 0, "--eos_token_id", 0, "--max_position_embeddings", 32768])
        server = ServerProcess("--max_queue_seconds=0", "--speculation=off", model=folder)
        try:
            with Streams(server) as streams:
                yield server, streams
        finally:
            server.stop()


def four_clients(server, streams, name, path, payload, seconds, coding="identity"):
    # A process of its own, and at low priority: what sending costs is not the server's doing.
    with multiprocessing.Pool(1, os.nice, (19,)) as pool:
        pool.apply(os.getpid)  # it has started
        prober = Prober(server)
        with Beside(server, streams) as beside:
            statuses = pool.apply(post_from_four, (server.http_address, path, payload, seconds, coding))
    yield (f"4 clients at once, {len(payload) / 1024:.0f} KiB each: {name}; between tokens", "twice a step", f"{beside}; answers {statuses}")
    yield from prober.rows()


class Beside:
    """Of the time that it is entered: the gaps that the streams saw, those of the server's own clock, and whether the machine was there:
    what clients see, on cores that they share with the server, is not the server's alone."""

    NAMES = {"steps": "sessa_step_duration_seconds", "gaps between a stream's tokens": "sessa_inter_token_latency_seconds"}

    def __init__(self, server, streams):
        self.server, self.streams, self.watch = server, streams, CoreWatch()

    def __enter__(self):
        self.watch.__enter__()
        self.before = self.server.metrics()
        self.streams.clear()
        return self

    def __exit__(self, *_):
        self.seen = self.streams.summary()
        after = self.server.metrics()
        self.watch.__exit__()
        self.counts = {name: after[name] - self.before[name] for name in after if name in self.before}

    def __str__(self):
        own = [f"{n(f'{metric}_count') - n(bucket):.0f} of {n(f'{metric}_count'):.0f} {what}" for what, metric in self.NAMES.items()
               for n, bucket in [(self.counts.__getitem__, f'{metric}_bucket{{le="0.02"}}')]]
        steps = self.NAMES["steps"]
        mean = 1e3 * self.counts[f"{steps}_sum"] / self.counts[f"{steps}_count"]
        return (f"{self.seen}; by the server's own clock, steps of {mean:.1f} ms on average, {' and '.join(own)} took more than 20 ms; "
                f"{self.watch}")


def post_from_four(where, path, payload, seconds, coding):
    statuses, until = {}, time.monotonic() + seconds

    async def attack():
        await asyncio.gather(*(keep_posting(where, path, payload, until, statuses, coding) for _ in range(4)))

    asyncio.run(attack())
    return statuses


class Streams(TokenReader):
    """Four streams without end, and the gaps between their tokens."""

    def __init__(self, server):
        super().__init__(server.http_address, 4)

    def summary(self, seconds=0):
        """Of so many seconds from now on, or since the last summary."""
        if seconds:
            self.clear()
            time.sleep(seconds)
        ordered = sorted(self.gaps())
        median = ordered[len(ordered) // 2]
        return (f"p50 {1e3 * median:.1f} ms, p99 {1e3 * ordered[int(len(ordered) * .99)]:.1f} ms, longest {1e3 * ordered[-1]:.1f} ms, "
                f"{sum(gap > 2 * median for gap in ordered)} of {len(ordered)} over twice the p50")


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers():
    """HPACK (RFC 7541) without its tables' memory: POST, http, path, authority, what gRPC asks for."""
    literal = lambda index, value: bytes([index, len(value)]) + value
    return (b"\x83\x86" + literal(4, PATH) + literal(1, b"x") + b"\x0f\x10" + bytes([16]) + b"application/grpc"
            + b"\x00\x02te\x08trailers")


def reset_streams(server, count):
    """Opens and resets up to `count` streams on one connection; returns how many before it was closed."""
    block, sent = headers(), 0
    with socket.create_connection(address(server.grpc_address)) as s:
        s.settimeout(30)
        try:
            s.sendall(PREFACE + frame(4, 0, 0))
            while sent < count:
                n = min(50, count - sent)
                s.sendall(b"".join(frame(1, 4, 2 * i + 1, block) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08") for i in range(sent, sent + n)))
                sent += n
            while s.recv(1 << 16):
                pass
        except OSError:
            pass
    return sent


def resets(count=100_000):
    """Raw stream resets: all on one connection, then as many on ever new ones."""
    server = ServerProcess()
    try:
        grpc_serving(server)
        before, cpu = rss_mb(server), cpu_seconds(server)
        sent = reset_streams(server, count)
        yield f"{count} resets on one connection: sent until it was closed", "500, then 100/s", str(sent)
        yield "memory, before and after; CPU", "", f"{before:.0f}, {rss_mb(server):.0f} MB; {cpu_seconds(server) - cpu:.1f} s"
        total = connections = 0
        begin = time.monotonic()
        while total < count and time.monotonic() < begin + 60:
            total += reset_streams(server, 1100)
            connections += 1
        yield (f"{total} more on {connections} connections: memory at most, after; CPU", "",
               f"{rss_mb(server, 'VmHWM'):.0f}, {rss_mb(server):.0f} MB; {cpu_seconds(server) - cpu:.1f} s")
        cut = server.metrics()['sessa_connections_cut_total{listener="grpc",reason="resets"}']
        yield "connections cut for it, counted; serving afterwards", f"{connections + 1}; True", f"{cut:.0f}; {grpc_serving(server)}"
        wait_until(lambda: server.metrics()['sessa_num_requests_in_flight'] == 0)
    finally:
        server.stop()


ATTACKS = {"descriptors": descriptors, "idle": idle, "text": text, "long": long, "longer_steps": longer_steps, "coded": coded,
           "resets": resets}


def main():
    multiprocessing.set_start_method("spawn")  # a fork would take gRPC's locks and not its threads
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    print("| attack and what is looked at | limit | figure |\n|---|---|---|", flush=True)
    for name in sys.argv[1:] or ATTACKS:
        for what, bound, figure in ATTACKS[name]():
            print(f"| {name}: {what} | {bound} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
