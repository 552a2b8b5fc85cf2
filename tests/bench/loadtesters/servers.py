"""The servers that the load testers are run against, and what each knows itself of a run: sessa-server's histograms and access
log, the scripted server's record."""
import contextlib
import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import figures

MODELS = pathlib.Path(__file__).parents[3] / "models"
sys.path.insert(0, str(MODELS))
import convert  # noqa: E402


def make_model(folder, hidden=768, layers=12, max_len=131072):
    """A checkpoint with random weights, unless it is there: only the amount of work matters."""
    if not (folder / "model.safetensors").exists():
        convert.run(["random", folder, "--tokenizer", MODELS / "demo", "--bos_token_id", 0, "--eos_token_id", 0, "--hidden_size", hidden,
                     "--num_hidden_layers", layers, "--max_position_embeddings", max_len])
    return folder


class _Process:
    def __init__(self, command, cores):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(["taskset", "-c", cores, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        line = self.process.stdout.readline()
        match = re.match(r"ready http=(\S+)", line)
        if not match:
            self.log.seek(0)
            raise RuntimeError(f"{command[0]} did not start: {line!r} {self.log.read()}")
        self.address = match[1]

    def get(self, path):
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=60)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()


class SessaServer(_Process):
    """As many runs as one likes: `begin` before each, `figures` after it."""
    model_name = "model"

    def __init__(self, binary, model, cores, threads):
        super().__init__([binary, f"--model={model}", "--http_port=0", "--grpc_port=0", f"--threads={threads}", "--log_format=json",
                          "--served_model_name=model", "--state_cache_bytes=2000000000"], cores)

    def metrics(self):
        lines = (line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if line and line[0] != "#")
        # By name: whatever labels a series has, there is one model.
        values = {}
        for series, value in lines:
            name = series.split("{")[0]
            values[name] = values.get(name, 0) + float(value)
        return values

    def begin(self):
        self.before, self.log_at = self.metrics(), self.log_size()

    def log_size(self):
        return self.log.seek(0, 2)

    def figures(self):
        self.idle()
        delta = {name: value - self.before.get(name, 0) for name, value in self.metrics().items()}
        mean = lambda name: 1e3 * delta[f"{name}_sum"] / delta[f"{name}_count"]
        self.log.seek(self.log_at)
        ended = [entry for entry in map(json.loads, self.log) if entry["message"] == "request"]
        ends = [_unix(entry["time"]) for entry in ended]
        begins = [end - entry["seconds"] for end, entry in zip(ends, ended)]
        output = sum(entry.get("completion_tokens", 0) for entry in ended)
        return figures.Figures(
            requests=sum(entry["status"] == "200" for entry in ended), failed=sum(entry["status"] != "200" for entry in ended),
            prompt_tokens=sum(entry.get("prompt_tokens", 0) for entry in ended), output_tokens=output,
            ttft=mean("sessa_time_to_first_token_seconds"), itl=mean("sessa_inter_token_latency_seconds"),
            rate=output / (max(ends) - min(begins)))

    def idle(self):
        while self.metrics()["sessa_num_requests_in_flight"]:
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.communicate()


class ScriptedServer(_Process):
    """One run: its record is read when it stops."""
    model_name = "scripted"

    def __init__(self, binary, cores, first_token_ms, between_ms):
        super().__init__([binary, f"--first_token_ms={first_token_ms}", f"--between_events_ms={between_ms}"], cores)

    def begin(self):
        pass

    def figures(self):
        record = json.loads(self.process.communicate()[0])
        whole = [r for r in record if not r["client_left"] and r["events"]]
        requests = [(r["prompt_tokens"], sum(n for _, n in r["events"]), 1e3 * (r["events"][0][0] - r["received"]),
                     1e3 * (r["events"][-1][0] - r["events"][0][0])) for r in whole]
        seconds = max(r["ended"] for r in whole) - min(r["received"] for r in whole)
        return figures.of_requests(requests, len(record) - len(whole), sum(r[1] for r in requests) / seconds)

    def stop(self):
        if self.process.poll() is None:
            self.process.communicate()


def _unix(text):
    seconds, rest = text[:-1].split(".")
    return time.mktime(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{rest}")


def make_hub(folder, model):
    """A cache of the Hugging Face hub with one entry, local/model: AIPerf takes no folder when it is offline."""
    snapshot = folder / "hub" / "models--local--model" / "snapshots" / "1"
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot.parents[1] / "refs").mkdir(exist_ok=True)
    (snapshot.parents[1] / "refs" / "main").write_text("1")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (snapshot / name).write_bytes((pathlib.Path(model) / name).read_bytes())
