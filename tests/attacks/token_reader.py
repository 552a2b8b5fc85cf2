#!/usr/bin/env python3
"""Streams without end over REST, and when their tokens came (those that came together count once): a process of its own, of real-time
priority where that is allowed, as clients have machines of their own. It does next to nothing for a token, so that it does not take the cores
whose gaps it measures: four gRPC streams in one Python took a fifth of a core at steps of 3 ms, and read every sixth token late.

    python3 tests/attacks/token_reader.py HOST PORT STREAMS    commands on stdin: clear; get: the gaps since then, in seconds, as JSON
"""
import contextlib
import gc
import json
import os
import selectors
import socket
import subprocess
import sys
import time

BODY = json.dumps({"prompt": [1, 2, 3], "max_tokens": 500, "ignore_eos": True, "stream": True}).encode()
REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def read(host, port, streams):
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.disable()
    selector, last, gaps = selectors.DefaultSelector(), {}, []
    selector.register(sys.stdin, selectors.EVENT_READ)
    for _ in range(streams):
        stream = socket.create_connection((host, port))
        selector.register(stream, selectors.EVENT_READ)
        stream.sendall(REQUEST)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                commands = os.read(0, 4096).split()
                if not commands:
                    return
                for command in commands:
                    if command == b"get":
                        print(json.dumps(gaps), flush=True)
                    gaps.clear()
                continue
            data, now = key.fileobj.recv(1 << 16), time.monotonic()
            if not data:
                raise ConnectionError("the server closed a stream")
            if key.fileobj in last:
                gaps.append(now - last[key.fileobj])
            last[key.fileobj] = now
            if b"[DONE]" in data:
                del last[key.fileobj]
                key.fileobj.sendall(REQUEST)


class TokenReader:
    """Streams of a server, while it is entered."""

    def __init__(self, address, streams):
        self.arguments = [*address.rsplit(":", 1), str(streams)]

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-I", __file__, *self.arguments], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def clear(self):
        self.tell("clear")

    def gaps(self):
        """Those since the last call of this or of clear, in seconds."""
        self.tell("get")
        return json.loads(self.process.stdout.readline())


if __name__ == "__main__":
    read(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
