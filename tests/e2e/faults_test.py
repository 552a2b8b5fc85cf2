"""Faults of the world around a real server: logs that nobody reads, full disks and closed descriptors, a clock that is set,
signals at any moment, a thread that hangs, kill -9 and a restart, descriptors and memory used up. Each ends with every request accounted for."""
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import resource
import signal
import socket
import tempfile
import threading
import time
import unittest

import grpc

import grpc_client
from grpc_client import pb
from server_process import PROMPT, ServerProcess, slow_model, wait_until

CLOCK_SHIFT = os.environ["SESSA_CLOCK_SHIFT_LIBRARY"]


def accounted(server):
    """Every request that was received has its outcome, and no slot or page is held."""
    metrics = server.metrics()
    received = sum(v for k, v in metrics.items() if k.startswith("sessa_requests_received_total"))
    ended = sum(v for k, v in metrics.items() if k.startswith("sessa_requests_total"))
    return (received == ended and metrics["sessa_num_requests_in_flight"] == 0 and metrics["sessa_num_requests_running"] == 0 and
            metrics["sessa_num_requests_waiting"] == 0 and metrics["sessa_state_cache_usage_ratio"] == 0)


def complete(server, max_tokens=3, **more):
    return server.request("POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": max_tokens, "ignore_eos": True, **more})


class FaultsTest(unittest.TestCase):
    def start(self, *flags, **popen):
        server = ServerProcess(*flags, **popen)
        self.addCleanup(server.stop)
        return server

    # ---- logs ----

    def test_a_log_that_nobody_reads(self):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        server = self.start(stderr=writer)
        os.close(writer)
        # Each of these leaves a line of 2 KB: the queue's megabyte and the writer's are full before the end.
        path = "/v2/models/" + "%01" * 500 + "/generate"
        host, port = server.http_address.rsplit(":", 1)
        request = (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n"
                   '{"text_input": ""}').encode()
        with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as answers:
            for _ in range(1500):
                connection.sendall(request)
                self.assertIn(b" 404 ", answers.readline())
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                answers.read(length)
        self.assertEqual(complete(server)[0], 200)
        wait_until(lambda: accounted(server))
        dropped = server.metrics()["sessa_log_lines_dropped_total"]
        self.assertGreater(dropped, 0)
        self.assertEqual(server.stop(), 0)  # its end does not wait for a reader either
        with os.fdopen(reader) as log:
            log.read(1)

    def test_a_reader_that_comes_back_is_told(self):
        reader, writer = os.pipe()
        server = self.start("--log_format=json", stderr=writer)
        os.close(writer)
        with os.fdopen(reader) as log:
            self.assertEqual(complete(server)[0], 200)
            entry = next(entry for entry in map(json.loads, log) if entry["message"] == "request")
            self.assertEqual(entry["status"], "200")
            self.assertEqual(server.stop(), 0)
            self.assertEqual(json.loads(log.readlines()[-1])["message"], "stopped")

    def test_full_disks_and_closed_descriptors(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            server = self.start(stderr=full)
            for _ in range(20):
                self.assertEqual(complete(server)[0], 200)
            wait_until(lambda: server.metrics()["sessa_log_lines_dropped_total"] >= 20)
            wait_until(lambda: accounted(server))
            self.assertEqual(server.stop(), 0)
            for spoil in ({"stdout": full}, {"preexec_fn": lambda: os.close(1)}, {"preexec_fn": lambda: os.close(2)},
                          {"preexec_fn": lambda: [os.close(fd) for fd in (0, 1, 2)]}):
                with self.subTest(spoil):
                    server = ServerProcess("--admin_port=off", wait=False, **spoil)
                    server.http_address = self.listening_address(server.process.pid)
                    wait_until(lambda: server.request("GET", "/readyz")[0] == 200)
                    self.assertEqual(complete(server)[0], 200)
                    wait_until(lambda: accounted(server))
                    server.signal()
                    self.assertEqual(server.process.wait(60), 0)
                    if server.process.stdout:
                        server.process.stdout.close()
                    server.errors.close()

    def listening_address(self, pid):
        """The HTTP port of a server that could not tell it: the socket of its own that answers HTTP."""
        found = []

        def look():
            inodes = set()
            for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                try:
                    inodes.add(os.readlink(fd))
                except FileNotFoundError:
                    pass
            for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    port = int(fields[1].split(":")[1], 16)
                    try:
                        with socket.create_connection(("127.0.0.1", port), 5) as connection:
                            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                            if connection.recv(4) == b"HTTP":
                                found.append(f"127.0.0.1:{port}")
                    except OSError:
                        pass
            return found

        wait_until(look)
        return found[0]

    # ---- time ----

    def test_the_clock_is_set_by_an_hour(self):
        with tempfile.TemporaryDirectory() as folder:
            shift = pathlib.Path(folder, "shift")
            shift.write_text("0", encoding="ascii")
            server = self.start("--drain_seconds=100", "--request_timeout_seconds=100",
                                env={**os.environ, "LD_PRELOAD": CLOCK_SHIFT, "SESSA_CLOCK_SHIFT": str(shift)})
            channel, stub = grpc_client.connect(server)
            self.addCleanup(channel.close)
            for seconds in ("3600", "-3600"):
                def run_all():
                    statuses = []
                    threads = [threading.Thread(target=lambda: statuses.append(complete(server, 300)[0])) for _ in range(4)]
                    before = server.metrics()["sessa_generation_tokens_total"]
                    calls = [stub.Generate(pb.GenerateRequest(
                        text=PROMPT, sampling=pb.Sampling(max_tokens=300, ignore_eos=True)), timeout=100) for _ in range(4)]
                    for thread in threads:
                        thread.start()
                    wait_until(lambda: server.metrics()["sessa_generation_tokens_total"] > before + 20)
                    shift.write_text(seconds, encoding="ascii")
                    for thread in threads:
                        thread.join()
                    for call in calls:
                        self.assertEqual(list(call)[-1].finished.usage.completion_tokens, 300)
                    self.assertEqual(statuses, [200] * 4)
                run_all()
                self.assertEqual(server.request("GET", "/livez")[0], 200)
                self.assertLess(server.metrics()["sessa_engine_loop_age_seconds"], 60)
                wait_until(lambda: accounted(server))
                # A deadline is still one, and health is still published.
                with self.assertRaises(grpc.RpcError) as caught:
                    list(stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(
                        max_tokens=3900, ignore_eos=True)), timeout=0.3))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
                status, _, _ = complete(server, 3900, timeout=0.2)
                self.assertIn(status, (503, 504))  # refused at once where it would be missed
                wait_until(lambda: accounted(server))
            watch = grpc_client.health(channel, watch=True)
            self.assertEqual(next(watch), grpc_client.SERVING)
            call = stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(max_tokens=300, ignore_eos=True)))
            next(call)
            server.signal()
            self.assertEqual(next(watch), grpc_client.NOT_SERVING)
            shift.write_text("7200", encoding="ascii")  # while it drains
            self.assertEqual(list(call)[-1].finished.usage.completion_tokens, 300)
            self.assertEqual(server.wait(60), 0)

    # ---- signals ----

    def test_sigterm_at_any_moment_of_the_start(self):
        begin = time.monotonic()
        ServerProcess().stop()
        seconds = time.monotonic() - begin
        for i in range(12):
            server = ServerProcess(wait=False)
            self.addCleanup(server.errors.close)
            time.sleep(seconds * i / 10)
            server.signal()
            server.process.communicate(timeout=60)
            # Before it has blocked the signal the system ends the process, which has done nothing yet.
            if server.process.returncode != -signal.SIGTERM or server.stderr():
                self.assertEqual(server.process.returncode, 0, server.stderr())

    def test_sigterm_while_a_request_waits_or_its_prompt_is_computed(self):
        for streams in (True, False):
            server = self.start("--max_num_seqs=1", "--drain_seconds=100", "--max_step_tokens=64")
            answers = []
            long = {"prompt": PROMPT * 20, "max_tokens": 300, "ignore_eos": True, "stream": streams}
            threads = [threading.Thread(target=lambda: answers.append(server.request("POST", "/v1/completions", long)))
                       for _ in range(6)]
            for thread in threads:
                thread.start()

            def all_are_taken():  # in one look at both, lest one that begins between two looks stands in neither
                metrics = server.metrics()
                return metrics["sessa_num_requests_running"] == 1 and metrics["sessa_num_requests_waiting"] == 5

            wait_until(all_are_taken)
            server.signal()
            for thread in threads:
                thread.join()
            self.assertEqual([status for status, _, _ in answers], [200] * 6)
            if streams:
                self.assertTrue(all(body.endswith("data: [DONE]\n\n") for _, _, body in answers))
            self.assertEqual(server.wait(), 0)

    def test_kill_and_restart_under_a_client_that_tries_again(self):
        server = self.start()
        port = server.http_address.rsplit(":", 1)[1]
        done, failures, stop = [], [], threading.Event()

        def client(server_of):
            while not stop.is_set():
                try:
                    status, _, body = complete(server_of(), 20)
                    if status == 200:
                        done.append(json.loads(body)["usage"]["completion_tokens"])
                        continue
                    failures.append(status)
                except (OSError, http.client.HTTPException):
                    failures.append("connection")
                time.sleep(0.02)

        current = [server]
        threads = [threading.Thread(target=client, args=(lambda: current[0],)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            enough = len(done) + 5
            wait_until(lambda: len(done) > enough)
            current[0].process.kill()
            current[0].process.communicate()
            current[0].errors.close()
            replacement = ServerProcess(f"--http_port={port}", wait=False)  # the later flag holds
            replacement.ready()
            self.addCleanup(replacement.stop)
            current[0] = replacement
        enough = len(done) + 5
        wait_until(lambda: len(done) > enough)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(set(done), {20})
        self.assertLessEqual({f for f in failures if f != "connection"}, {503})  # while it loads
        wait_until(lambda: accounted(current[0]))
        self.assertEqual(current[0].stop(), 0)

    # ---- a thread that hangs ----

    def test_sigterm_ends_a_server_whose_engine_hangs(self):
        server = self.start("--threads=1", "--drain_seconds=0.1", "--access_log=off", model=slow_model())
        channel, stub = grpc_client.connect(server)
        self.addCleanup(channel.close)
        calls = [stub.Generate(pb.GenerateRequest(text=PROMPT, sampling=pb.Sampling(max_tokens=1900, ignore_eos=True)))
                 for _ in range(4)]
        with Stopped(busiest_thread(server.process.pid)) as stopped:
            self.assertEqual(server.request("GET", "/livez")[0], 200)  # nothing else waits for it
            before = server.metrics()["sessa_steps_total"]
            self.assertEqual(server.metrics()["sessa_steps_total"], before)
            server.signal()
            stopped.wait_for_its_end()
            self.assertEqual(server.process.wait(60), 1)
            self.assertIn("engine hangs", server.stderr().splitlines()[-1])
        for call in calls:
            with self.assertRaises(grpc.RpcError) as caught:
                list(call)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)

    # ---- clients ----

    def test_clients_that_vanish(self):
        server = self.start("--access_log=off")
        host, port = server.http_address.rsplit(":", 1)
        body = json.dumps({"prompt": PROMPT, "max_tokens": 3900, "ignore_eos": True, "stream": True})
        request = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                   f"Content-Length: {len(body)}\r\n\r\n{body}").encode()
        open_files = server.metrics()["process_open_fds"]

        def reset(connection):  # SO_LINGER of zero seconds: closing sends a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()

        half_closed = []

        def half_close(connection):  # of a whole request that is no leaving yet: its answer is still read, maybe
            connection.shutdown(socket.SHUT_WR)
            half_closed.append(connection)

        for cut in (1, 50, len(request) - 1, len(request)):
            for leave in (socket.socket.close, reset, half_close):
                for reads in (0, 1, 4096):
                    if reads and cut < len(request):
                        continue
                    connection = socket.create_connection((host, int(port)))
                    self.addCleanup(connection.close)
                    connection.sendall(request[:cut])
                    if reads:
                        connection.recv(reads)
                    leave(connection)
        for connection in half_closed:
            connection.close()
        wait_until(lambda: accounted(server))
        wait_until(lambda: server.metrics()["process_open_fds"] <= open_files + 1)
        self.assertEqual(server.stop(), 0)

    def test_descriptors_used_up(self):
        limit = 80
        server = self.start("--access_log=off", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        host, port = server.http_address.rsplit(":", 1)
        for _ in range(3):
            idle = [socket.create_connection((host, int(port))) for _ in range(limit + 20)]
            time.sleep(0.2)  # those that were accepted are held, the others wait or were refused
            for connection in idle:
                connection.close()
            wait_until(lambda: self.answers(server))
        wait_until(lambda: accounted(server))
        self.assertEqual(server.stop(), 0)

    def test_memory_near_its_limit(self):
        server = self.start("--access_log=off")
        self.assertEqual(complete(server)[0], 200)
        pages = int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[0])
        before = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + (24 << 20), before[1]))
        statuses = []

        def send(size):
            try:
                statuses.append(complete(server, prompt=[1] * size)[0])
            except OSError:
                statuses.append("connection")

        threads = [threading.Thread(target=send, args=(size,)) for size in [100, 3000, 400_000, 1_000_000] * 6]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLessEqual(set(statuses), {200, 400, 500, 503, "connection"})
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, before)
        wait_until(lambda: self.answers(server))
        wait_until(lambda: accounted(server))
        self.assertEqual(server.stop(), 0)

    @staticmethod
    def answers(server):
        try:
            return complete(server)[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def busiest_thread(pid):
    """The thread of the process that uses most time, as the engine's does while it generates."""
    def used():
        return {task.name: int(pathlib.Path(task, "stat").read_text(encoding="utf-8").rsplit(") ", 1)[1].split()[11])
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir()}
    before = used()
    while True:
        now = used()
        busiest = max(now, key=lambda task: now[task] - before.get(task, 0))
        if now[busiest] - before.get(busiest, 0) >= 20:  # hundredths of a second
            return int(busiest)
        time.sleep(0.01)


class Stopped:
    """Holds one thread of a child process while the block runs, as a device that never answers would."""
    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, thread):
        self.thread = thread
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

    def ptrace(self, what):
        if self.libc.ptrace(what, self.thread, None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def __enter__(self):
        self.ptrace(self.SEIZE)
        self.ptrace(self.INTERRUPT)
        self.wait()
        return self

    def wait(self, options=0):
        return os.waitpid(self.thread, 0x40000000 | options)  # __WALL

    def wait_for_its_end(self):
        """A process ends only when who holds its threads has seen them end."""
        def ended():
            thread, status = self.wait(os.WNOHANG)
            return thread and not os.WIFSTOPPED(status)
        wait_until(ended)

    def __exit__(self, *_):
        try:
            self.ptrace(self.DETACH)
        except OSError:
            pass  # its process has ended


if __name__ == "__main__":
    unittest.main()
