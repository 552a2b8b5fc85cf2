"""Ranks in processes of their own: the answers are those of one process to the bit; the group forms with those that belong to it
alone; and whichever process is killed, stopped or cut off, the others end within the stated time, and every request with an error."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from server_process import PROMPT, ROOT, ServerProcess, wait_until

LLAMA = ROOT / "tests" / "reference" / "data" / "llama"
DEMO = ROOT / "models" / "demo"
SMALL = ("--threads=1", "--state_cache_bytes=32MiB")


class Processes(unittest.TestCase):
    def process(self, rank, size, address, *flags, **more):
        server = ServerProcess(f"--rank={rank}", f"--tensor_parallel_size={size}", f"--group_address={address}", *SMALL, *flags,
                               wait=False, **more)
        self.addCleanup(server.stop)
        self.addCleanup(server.signal, signal.SIGKILL)  # before it: a group that hangs does not hold the test
        return server

    def leader(self, size, *flags, **more):
        """A leader that waits for its ranks, and its group's address."""
        server = self.process(0, size, "127.0.0.1:0", *flags, **more)
        wait_until(lambda: "more ranks on " in server.stderr() or server.process.poll() is not None)
        return server, re.search(r"more ranks on (\S+)", server.stderr())[1]

    def group(self, size, *flags, **more):
        leader, address = self.leader(size, *flags, **more)
        processes = [leader, *(self.process(rank, size, address, *flags, **more) for rank in range(1, size))]
        for process in processes:
            process.ready()
        return processes

    def assert_lost(self, processes, why):
        for process in processes:
            self.assertEqual(process.wait(), 1, process.stderr())
            self.assertRegex(process.stderr(), why)

    def stream(self, leader):
        """A long answer that has begun: (thread that reads it, list that will have the rest)."""
        host, port = leader.http_address.rsplit(":", 1)
        body = json.dumps({"prompt": PROMPT, "max_tokens": 3900, "ignore_eos": True, "stream": True}).encode()
        connection = socket.create_connection((host, int(port)))
        self.addCleanup(connection.close)
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        answer = connection.makefile("rb")
        self.addCleanup(answer.close)
        while not answer.readline().startswith(b"data: {"):
            pass
        rest = []
        reader = threading.Thread(target=lambda: rest.append(answer.read().decode()))
        reader.start()
        return reader, rest

    def assert_fails(self, stream, why):
        reader, rest = stream
        reader.join(120)
        self.assertFalse(reader.is_alive())
        self.assertRegex(rest[0], why)
        self.assertIn("data: [DONE]", rest[0])


class GroupTest(Processes):
    # ---- answers ----

    def answers(self, server, prompts):
        said = []
        for prompt in prompts:
            status, _, text = server.request("POST", "/v1/completions", {
                "prompt": prompt, "max_tokens": 24, "temperature": 0.8, "seed": 7, "logprobs": 5, "echo": True, "ignore_eos": True,
                "return_token_ids": True})
            self.assertEqual(status, 200, text)
            said.append(json.loads(text)["choices"])
        return said

    def test_the_bits_of_one_process(self):
        texts, ids = [PROMPT, PROMPT + " the", "Milo " * 150], [[1, 2, 3], [[5] * 70, list(range(40))]]
        for model, size, prompts in (DEMO, 2, texts), (LLAMA, 4, ids):
            with self.subTest(model.name, size=size):
                group = self.group(size, model=model)
                alone = ServerProcess(f"--tensor_parallel_size={size}", *SMALL, model=model)
                self.addCleanup(alone.stop)
                self.assertEqual(self.answers(group[0], prompts), self.answers(alone, prompts))
                group[0].signal()
                self.assertEqual([process.wait() for process in group], [0] * size)
                alone.stop()

    # ---- the end in good order ----

    def test_a_rank_that_is_asked_to_stop_drains_the_group(self):
        leader, member = self.group(2, "--drain_seconds=100")
        for path, status in ("/livez", 200), ("/metrics", 200), ("/readyz", 503), ("/v1/models", 404):
            self.assertEqual(member.request("GET", path, at=member.admin_address)[0], status, path)
        result = []
        asked = threading.Thread(target=lambda: result.append(leader.request("POST", "/v1/completions", {
            "prompt": PROMPT, "max_tokens": 200, "ignore_eos": True})))
        asked.start()
        wait_until(lambda: leader.metrics()["sessa_num_requests_running"] > 0 or result)
        member.signal()
        self.assertEqual(leader.wait(), 0, leader.stderr())
        self.assertEqual(member.wait(), 0, member.stderr())
        asked.join()
        self.assertEqual(result[0][0], 200)
        self.assertIn("rank 1 was asked to stop", leader.stderr())

    # ---- losses ----

    def test_a_rank_that_is_killed(self):
        leader, first, second = processes = self.group(4)[:3]
        stream = self.stream(leader)
        second.signal(signal.SIGKILL)
        self.assert_fails(stream, "rank 2")
        self.assert_lost([leader, first], r"rank \d is lost|rank \d, in a collective")
        self.assertIn("rank 2", leader.stderr())
        self.assertEqual(processes[2].wait(), -signal.SIGKILL)

    def test_a_rank_that_is_killed_while_nothing_runs(self):
        leader, member = self.group(2)
        member.signal(signal.SIGKILL)
        self.assert_lost([leader], "rank 1 is lost: ")

    def test_a_leader_that_is_killed(self):
        leader, *members = self.group(4)
        leader.signal(signal.SIGKILL)
        self.assert_lost(members, "rank 0 is lost: |rank 0, in a collective")

    def test_a_rank_that_stands_still(self):
        for stopped in 1, 0:
            processes = self.group(2, "--group_silence_seconds=3")
            stream = self.stream(processes[0])
            processes[stopped].signal(signal.SIGSTOP)
            self.assert_lost([processes[1 - stopped]], f"rank {stopped} is lost: silent for 3s")
            processes[stopped].signal(signal.SIGCONT)
            self.assert_lost([processes[stopped]], "is lost: |in a collective")
            self.assert_fails(stream, "rank 1")

    # ---- who belongs to it ----

    def test_what_does_not_belong_there_is_refused(self):
        leader, address = self.leader(2)
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as half, socket.create_connection((host, int(port))) as garbage:
            half.sendall(b"kind=work\n")
            garbage.sendall(os.urandom(4000) + b"\n\n")
            self.assertRegex(garbage.makefile("rb").read(), rb"^sessa-group 1 \w+\nrefused not a rank's greeting")
            for flags, model, why in [
                ((), LLAMA, "the SHA-256 of config.json is"),
                (("--page_size=16",), DEMO, "--page_size is 16, and 64 with the leader"),
                (("--state_dtype=f32",), DEMO, "--state_dtype is f32, and bf16 with the leader"),
                (("--state_cache_bytes=16MiB",), DEMO, "--state_cache_bytes is 16777216, and 33554432 with the leader"),
                (("--tensor_parallel_size=4",), DEMO, "--tensor_parallel_size is 4, and 2 with the leader"),
                (("--tensor_parallel_size=4", "--rank=3"), DEMO, "its rank is 3, and the group's are 0 to 1"),
            ]:
                with self.subTest(why):
                    wrong = self.process(1, 2, address, *flags, model=model)
                    self.assertEqual(wrong.wait(), 1)
                    self.assertIn(f"the leader refuses this rank: {why}", wrong.stderr())
            member = self.process(1, 2, address)
            leader.ready()
            member.ready()
        # Now nobody is let in any more.
        late = self.process(1, 2, address, "--group_start_seconds=0.5")
        self.assertEqual(late.wait(), 1)
        self.assertIn("did not take this rank within 500ms", late.stderr())
        leader.signal()
        self.assertEqual([leader.wait(), member.wait()], [0, 0])

    def test_a_secret(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        ours, other = pathlib.Path(folder.name, "ours"), pathlib.Path(folder.name, "other")
        ours.write_text("a secret of ours, long\n")
        other.write_text("a secret of others, long\n")
        leader, address = self.leader(2, f"--group_secret_file={ours}")
        for flags in (), (f"--group_secret_file={other}",):
            wrong = self.process(1, 2, address, *flags)
            self.assertEqual(wrong.wait(), 1)
            self.assertIn("the group's secret is another (--group_secret_file)", wrong.stderr())
        member = self.process(1, 2, address, f"--group_secret_file={ours}")
        leader.ready()
        member.ready()

    def test_a_group_that_is_never_complete(self):
        leader, _ = self.leader(2, "--group_start_seconds=0.5")
        self.assertEqual(leader.wait(), 1)
        self.assertIn("of the group's ranks 1 did not come within 500ms", leader.stderr())

    def test_flags_that_make_no_group(self):
        for flags, why in [
            (("--rank=1",), "--rank: goes with --group_address"),
            (("--group_address=127.0.0.1:1",), "a group has 2 ranks at least"),
            (("--group_address=127.0.0.1:1", "--tensor_parallel_size=2", "--rank=2"), "--rank: 2 is not in [0, 2)"),
            (("--group_address=127.0.0.1", "--tensor_parallel_size=2"), "'127.0.0.1' is not HOST:PORT"),
            (("--group_address=127.0.0.1:0", "--tensor_parallel_size=2", "--rank=1"), "port 0 is the leader's to choose"),
            (("--group_address=0.0.0.0:0", "--tensor_parallel_size=2"), "give --group_secret_file, or say --insecure"),
            (("--group_address=127.0.0.1:0", "--tensor_parallel_size=2", "--group_secret_file=/dev/null"), "at least 16 bytes"),
            (("--group_address=127.0.0.1:0", "--tensor_parallel_size=2", "--group_silence_seconds=0.09"), "at least 0.1"),
            (("--group_secret_file=/dev/null",), "--group_secret_file: goes with --group_address"),
        ]:
            with self.subTest(why):
                server = ServerProcess(*flags, wait=False)
                self.addCleanup(server.stop)
                self.assertEqual(server.wait(), 1)
                self.assertIn(why, server.stderr())


class NamespacesTest(Processes):
    """Two machines, as network namespaces with a cable between them."""

    def ip(self, *words):
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def setUp(self):
        if shutil.which("ip") is None:
            self.skipTest("needs iproute2")
        self.names = [f"sessa{os.getpid()}{end}" for end in "ab"]
        try:
            for name in self.names:
                self.ip("netns", "add", name)
                self.addCleanup(self.ip, "netns", "delete", name)
            self.ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "name", "cable", "netns", self.names[1])
        except subprocess.CalledProcessError as error:
            self.skipTest(f"needs root and network namespaces: {error.stderr}")
        for name, address in zip(self.names, ("10.77.0.1/24", "10.77.0.2/24")):
            for words in ("address", "add", address, "dev", "cable"), ("link", "set", "cable", "up"), ("link", "set", "lo", "up"):
                self.ip("-n", name, *words)

    def on(self, end, *words):
        return ["ip", "netns", "exec", self.names[end], *words]

    def ask(self, leader, max_tokens):
        """A process that prints the whole stream."""
        body = json.dumps({"prompt": PROMPT, "max_tokens": max_tokens, "ignore_eos": True, "stream": True})
        program = ("import sys, urllib.request as r; "
                   "print(r.urlopen(r.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/json'})).read().decode())")
        return subprocess.Popen(self.on(0, sys.executable, "-c", program, f"http://{leader.http_address}/v1/completions", body),
                                stdout=subprocess.PIPE, text=True)

    def test_a_cable_that_is_cut(self):
        leader, member = (self.process(rank, 2, "10.77.0.1:8003", "--group_silence_seconds=3", "--insecure", prefix=self.on(rank))
                          for rank in (0, 1))
        leader.ready()
        member.ready()
        self.assertIn('"finish_reason":"length"', self.ask(leader, 3).communicate()[0].replace(" ", ""))
        running = self.ask(leader, 3900)
        self.ip("-n", self.names[1], "link", "set", "cable", "down")
        self.assertRegex(running.communicate()[0], "rank 1|shutting down")
        self.assert_lost([leader], "rank 1 is lost: silent for 3s")
        self.assert_lost([member], "rank 0 is lost: silent for 3s")


if __name__ == "__main__":
    unittest.main()
