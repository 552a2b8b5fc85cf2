"""--cache_events read as routers read vLLM's: by ZeroMQ and msgspec, with vLLM's own types. What a router makes of them is what the server
finds in its cache: when pages come, when they make room for others, and for each tenant."""
import collections
import json
import subprocess
import tempfile
import unittest
from typing import Any

import msgspec
import zmq

from server_process import BINARY, PROMPT, ROOT, ServerProcess, wait_until

PAGE = 64
TOPIC = "kv@pod@demo"


class Event(msgspec.Struct, omit_defaults=True, gc=False, tag=True):
    """As vllm.distributed.kv_events.KVCacheEvent."""


class BlockStored(Event):
    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[Any] | None = None


class BlockRemoved(Event):
    block_hashes: list[int]
    medium: str | None


class AllBlocksCleared(Event):
    pass


class Batch(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int | None = None


class Router:
    """What one replica's cache holds, by its events: {parent's name and tokens: name}."""

    def __init__(self, endpoint):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.setsockopt_string(zmq.SUBSCRIBE, TOPIC)
        self.socket.connect(endpoint)
        self.decoder = msgspec.msgpack.Decoder(Batch)
        self.pages, self.media, self.numbers = {}, set(), []
        self.names, self.num_removed = collections.defaultdict(set), 0  # of tokens, whatever was before them

    def close(self):
        self.socket.close()
        self.context.term()

    def read(self):
        """All that has come."""
        while self.socket.poll(0):
            topic, number, payload = self.socket.recv_multipart()
            assert topic.decode() == TOPIC
            self.numbers.append(int.from_bytes(number, "big"))
            for event in self.decoder.decode(payload).events:
                self.take(event)

    def take(self, event):
        if isinstance(event, BlockStored):
            self.media.add(event.medium)
            assert event.block_size == PAGE and len(event.token_ids) == PAGE * len(event.block_hashes)
            parent = event.parent_block_hash
            assert parent is None or parent in self.pages.values(), "of a page that is not known"
            for i, name in enumerate(event.block_hashes):
                tokens = tuple(event.token_ids[i * PAGE:(i + 1) * PAGE])
                self.pages[parent, tokens] = name
                self.names[tokens].add(name)
                parent = name
        elif isinstance(event, BlockRemoved):
            self.num_removed += len(event.block_hashes)
            for name in event.block_hashes:
                self.pages = {key: other for key, other in self.pages.items() if other != name}

    def cached(self, tokens):
        """How many of a prompt's tokens it expects there: whole pages, and at least one token is computed."""
        parent, found = None, 0
        while found + PAGE < len(tokens) and (name := self.pages.get((parent, tuple(tokens[found:found + PAGE])))) is not None:
            parent, found = name, found + PAGE
        return found


class CacheEventsTest(unittest.TestCase):
    def start(self, *flags):
        server = ServerProcess("--cache_events=tcp://127.0.0.1:*", f"--cache_events_topic={TOPIC}", *flags)
        self.addCleanup(server.stop)
        endpoint = next(line.split()[-1] for line in server.stderr().splitlines() if "cache events: on " in line)
        router = Router(endpoint)
        self.addCleanup(router.close)
        self.count = 0

        def heard():  # ZeroMQ connects when it does
            self.mark(server)
            router.read()
            return router.pages
        wait_until(heard)
        return server, router

    headers = None

    def ask(self, server, tokens):
        """How many of its tokens were found."""
        status, _, body = server.request("POST", "/v1/completions", {"prompt": tokens, "max_tokens": 1}, self.headers)
        self.assertEqual(status, 200, body)
        return json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"]

    def mark(self, server):
        """A page like none before; its tokens."""
        self.count += 1
        tokens = [1 + self.count % 1000, 1 + self.count // 1000] * (PAGE // 2) + [1]
        self.ask(server, tokens)
        return tokens

    def catch_up(self, server, router):
        """Until all is read that came before: events come in order."""
        last = self.mark(server)

        def read():
            router.read()
            return router.cached(last) == PAGE
        wait_until(read)

    def test_a_router_knows_what_is_found(self):
        server, router = self.start("--state_cache_bytes=4MiB")  # 1024 tokens, 16 pages
        prompts = [[7 + i] * (PAGE * (2 + i % 3)) + [900 + j] * (PAGE + 1) for i in range(4) for j in range(3)]
        found = 0
        for turn in range(3):
            for prompt in prompts if turn != 1 else reversed(prompts):
                self.catch_up(server, router)
                expected = router.cached(prompt)
                self.assertEqual(self.ask(server, prompt), expected)
                found += expected
        self.assertGreater(found, 0)
        self.assertGreater(router.num_removed, 0, "nothing ever made room")
        self.assertEqual(router.media, {"CPU"})
        self.assertEqual(router.numbers, list(range(router.numbers[0], router.numbers[0] + len(router.numbers))), "a gap")

    def test_replicas_name_alike(self):
        tokens = list(range(1, 2 * PAGE + 2))
        names = []
        for _ in range(2):
            server, router = self.start()
            self.ask(server, tokens)
            self.catch_up(server, router)
            names.append([router.names[tuple(tokens[at:at + PAGE])] for at in (0, PAGE)])
        self.assertEqual(names[0], names[1])
        self.assertEqual([len(all_of_them) for all_of_them in names[0]], [1, 1])

    def test_tenants_are_told_apart(self):
        with tempfile.NamedTemporaryFile("w", suffix="keys") as keys:
            keys.write("a alice\nb bob\n")
            keys.flush()
            self.headers = {"Authorization": "Bearer a"}
            server, router = self.start(f"--api_keys_file={keys.name}")
            tokens = list(range(1, PAGE + 2))
            self.assertEqual(self.ask(server, tokens), 0)
            self.headers = {"Authorization": "Bearer b"}
            self.assertEqual(self.ask(server, tokens), 0)
            self.catch_up(server, router)
            self.assertEqual(len(router.names[tuple(tokens[:PAGE])]), 2)

    def test_what_cannot_be_is_refused(self):
        demo = ROOT / "models" / "demo"
        with tempfile.TemporaryDirectory() as folder:
            for flags, reason in ((["--cache_events=5557"], "is not tcp://HOST:PORT"), (["--cache_events=tcp://*:5557"], "--insecure"),
                                  (["--cache_events_topic=x"], "goes with --cache_events"),
                                  (["--cache_events=tcp://127.0.0.1:*", "--noprefix_caching"], "goes with --prefix_caching"),
                                  ([f"--cache_events=ipc://{folder}/none/x"], "cannot publish on")):
                with self.subTest(flags):
                    done = subprocess.run([BINARY, demo, "--http_port=0", "--grpc_port=0", *flags], capture_output=True, text=True, timeout=120)
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(reason, done.stderr.splitlines()[-1])
            server = ServerProcess(f"--cache_events=ipc://{folder}/events")
            self.assertEqual(server.request("POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 2})[0], 200)
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main()
