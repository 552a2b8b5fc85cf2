"""Starts the real sessa-server with models/demo on ports of the system's choice, and stops it.

No test may need a machine's speed: what comes after an answer (a metric, a line of the log, a closed connection) is waited for, and
what must still run when something else happens runs on `slow_model`."""
import atexit
import functools
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(os.environ["SESSA_ROOT"])
BINARY = os.environ["SESSA_SERVER_BINARY"]
START_SECONDS = 300  # with a sanitizer on a busy machine


class ServerProcess:
    """One server. The constructor waits for its line, `stop` ends it and closes what it left open."""

    def __init__(self, *flags, model=ROOT / "models" / "demo", wait=True, descriptors=None, prefix=(), **popen):
        """`model` None: `flags` name it. `prefix`: the words of a program that runs it. `descriptors`: its limit of open files, soft and hard. `popen`: what else Popen is told, as another environment."""
        limit = descriptors and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)))
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*prefix, BINARY, *([f"--model={model}"] if model else []), "--http_port=0", "--grpc_port=0", "--threads=2",
             "--state_cache_bytes=268435456", *flags],
            **{"stdout": subprocess.PIPE, "stderr": self.errors, "text": True, "preexec_fn": limit, **popen})
        self.http_address = self.grpc_address = self.admin_address = None
        if wait:
            self.ready()

    def ready(self):
        watchdog = threading.Timer(START_SECONDS, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        match = re.fullmatch(r"ready (?:rank=\d+|http=(\S+:\d+) grpc=(\S+:\d+))(?: admin=(\S+:\d+))?\n", line)
        if not match:
            self.process.kill()
            self.process.communicate()
            errors = self.stderr()
            self.errors.close()
            raise AssertionError(f"no ready line but {line!r}; stderr:\n{errors}")
        self.http_address, self.grpc_address, self.admin_address = match.groups()

    def stderr(self):
        """What it has written so far. By pread: the offset is shared with the server, which must go on at the end."""
        return os.pread(self.errors.fileno(), os.fstat(self.errors.fileno()).st_size, 0).decode()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=120):
        """The exit code; a server that does not exit is killed and fails the test."""
        try:
            rest = self.process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"the server did not exit; stderr:\n{self.stderr()}") from None
        if rest:
            raise AssertionError(f"more than one line on stdout: {rest!r}")
        return self.process.returncode

    def stop(self):
        """SIGTERM if it still runs; the exit code. May be called again."""
        if self.process.poll() is None:
            self.signal()
        try:
            return self.process.returncode if self.process.stdout.closed else self.wait()
        finally:
            self.errors.close()

    def request(self, method, path, body=None, headers=None, at=None):
        """(status, headers, body as text) of one HTTP request, to the HTTP port or `at`; a dict body is sent as JSON."""
        host, port = (at or self.http_address).rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=120)
        try:
            headers = dict(headers or {})
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def metrics(self, at=None):
        """{name{labels}: value} of GET /metrics, without the label model_name that all carry."""
        status, _, text = self.request("GET", "/metrics", at=at)
        assert status == 200, text
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = re.sub(r'\{model_name="(?:[^"\\]|\\.)*",?', "{", name).removesuffix("{}")
                values[name] = float(value)
        return values


@functools.cache
def slow_model():
    """A random checkpoint with the demo's tokenizer: an answer of 3900 tokens takes some ten seconds of a fast machine's time, and more of
    a slow one's, where the demo's takes one."""
    sys.path.insert(0, str(ROOT / "models"))
    import convert  # wants NumPy, which not all who start servers have
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    model = pathlib.Path(folder.name, "slow")
    convert.run(["random", model, "--hidden_size", 768, "--num_hidden_layers", 8, "--num_attention_heads", 12, "--num_key_value_heads", 1,
                 "--tokenizer", ROOT / "models" / "demo"])
    return model


def events_of(body):
    """What follows `data: ` in a stream's body, in order."""
    return [event.removeprefix("data: ") for event in body.split("\n\n") if event]


def wait_until(condition, seconds=60):
    """Looks until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come to that in time")
        time.sleep(0.01)


PROMPT = ("This is a story about Milo and Kira. Kira saw that the orange coin is in the drawer.\n"
          "Question: Where is the orange coin?\nAnswer:")
