"""One sessa-server with random weights and one run of sessa-loadtest against it; what a watcher sees beside: how fast probes
answer, and how much memory the server holds."""
import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "loadtesters"))
import servers  # noqa: E402


def make_model(folder, hidden, layers):
    return servers.make_model(folder, hidden, layers, max_len=32768)


class Server:
    def __init__(self, build_dir, model, *flags):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([build_dir / "sessa-server", f"--model={model}", "--http_port=0", "--grpc_port=0", *flags],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        match = re.match(r"ready http=(\S+)", line)
        if not match:
            self.log.seek(0)
            raise RuntimeError(f"sessa-server did not start: {line!r} {self.log.read()}")
        self.address = match[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()

    def get(self, path):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def outcomes(self):
        """{outcome: requests} since the start, and those received."""
        text = self.get("/metrics")[1]
        ended = {m[1]: float(m[2]) for m in re.finditer(r'^sessa_requests_total\{.*?outcome="(\w+)".*?\} (\S+)$', text, re.M)}
        received = sum(float(value) for value in re.findall(r"^sessa_requests_received_total\{.*?\} (\S+)$", text, re.M))
        return ended, received

    def idle(self):
        while not re.search(r"^sessa_num_requests_in_flight(\{.*?\})? 0$", self.get("/metrics")[1], re.M):
            time.sleep(0.1)

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.M)[1]) / 1024


class Watcher(threading.Thread):
    """Asks for probes and metrics ten times a second, on a connection of its own each time, as Kubernetes and Prometheus do."""
    PATHS = ("/livez", "/readyz", "/metrics")

    def __init__(self, server):
        super().__init__()
        self.server, self.stop = server, threading.Event()
        self.seconds = {path: [] for path in self.PATHS}
        self.failed, self.resident = 0, []

    def run(self):
        while not self.stop.wait(0.1):
            for path in self.PATHS:
                begin = time.monotonic()
                status, _ = self.server.get(path)
                self.seconds[path].append(time.monotonic() - begin)
                self.failed += status != 200
            self.resident.append(self.server.resident_mib())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def load(build_dir, server, work_dir, *flags):
    """The JSON of one run."""
    path = work_dir / "run.json"
    path.unlink(missing_ok=True)
    done = subprocess.run([build_dir / "sessa-loadtest", f"--url=http://{server.address}", f"--json={path}", "--progress=false", *flags],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stdout)
    run = json.loads(path.read_text())["runs"][0]
    if done.returncode == 3:
        print(f"not to be trusted: {run['self_check']['failure']}", file=sys.stderr)
    return run
