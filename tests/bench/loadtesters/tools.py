"""The load testers: how each is started for a load, and what it said in its own files. A load is a trace (workload.py) and a number
of users; 0 users: the trace's arrivals are kept. Throughput is what the tool printed; latencies are summed up here from what it
wrote of each request, for their own summaries mean different things by one name (ITL: of all gaps, or of each request's mean)."""
import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import figures
import workload


@dataclasses.dataclass
class Load:
    trace: list
    users: int = 0  # closed loop when above 0


def _start(command, folder, cores, fine=(0,)):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1",
                   "DO_NOT_TRACK": "1"}
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        done = subprocess.run(["taskset", "-c", cores, *map(str, command)], stdout=log, stderr=subprocess.STDOUT, env=environment,
                              cwd=folder, check=False)
    if done.returncode not in fine:
        sys.exit(f"{command[0]} failed, see {folder}/log.txt:\n" + (folder / "log.txt").read_text()[-2000:])


def guidellm(programs, address, load, folder, cores):
    trace, output = folder / "trace.jsonl", folder / "report.json"
    workload.write(trace, load.trace, in_seconds=True)
    profile = {"kind": "concurrent", "streams": [load.users]} if load.users else {"kind": "replay"}
    spec = {"backend": {"kind": "openai_http", "target": f"http://{address}", "model": programs["model_name"],
                        "request_format": "/v1/completions", "http2": False, "extras": {"body": {"temperature": 0}}},
            "profile": profile, "tokenizer": {"kind": "huggingface_auto", "model": "local/model"},
            "data": [{"kind": "mooncake", "source": {"kind": "json_file", "path": str(trace)}}],
            "outputs": [{"kind": "json", "path": str(output)}]}
    (folder / "spec.json").write_text(json.dumps({"spec": spec}))
    _start([programs["guidellm"], "run", "-c", folder / "spec.json", "--disable-console"], folder, cores)
    benchmark = json.loads(output.read_text())["benchmarks"][0]
    done = benchmark["requests"]
    whole = done["successful"]
    requests = [(r["prompt_tokens"], r["output_tokens"], r["time_to_first_token_ms"],
                 r["inter_token_latency_ms"] * (r["output_tokens"] - 1)) for r in whole]
    rate = benchmark["metrics"]["output_tokens_per_second"]["successful"]["mean"]
    return figures.of_requests(requests, len(done["errored"]) + len(done["incomplete"]), rate)


def aiperf(programs, address, load, folder, cores):
    trace = folder / "trace.jsonl"
    workload.write(trace, load.trace)
    timing = (["--concurrency", load.users, "--no-fixed-schedule", "--request-count", len(load.trace)] if load.users
              else ["--fixed-schedule"])
    _start([programs["aiperf"], "profile", "-m", programs["model_name"], "-u", f"http://{address}", "--endpoint-type", "completions",
            "--streaming", "--input-file", trace, "--custom-dataset-type", "mooncake-trace", "--tokenizer", "local/model",
            "--extra-inputs", '{"ignore_eos":true,"temperature":0}', "--use-server-token-count", "--no-gpu-telemetry",
            "--no-server-metrics", "--ui", "none", "--artifact-dir", folder / "artifacts", "--random-seed", "1", *timing], folder, cores)
    requests, failed = [], 0
    for line in (folder / "artifacts" / "profile_export.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("error"):
            failed += 1
            continue
        value = lambda name: entry["metrics"][name]["value"]
        requests.append((value("input_sequence_length"), value("output_sequence_length"), value("time_to_first_token"),
                         value("inter_token_latency") * (value("output_sequence_length") - 1)))
    report = json.loads((folder / "artifacts" / "profile_export_aiperf.json").read_text())
    return figures.of_requests(requests, failed, report["output_token_throughput"]["avg"])


def sessa_loadtest(programs, address, load, folder, cores):
    trace, report, table = folder / "trace.jsonl", folder / "report.json", folder / "requests.csv"
    workload.write(trace, load.trace)
    _start([programs["ours"], f"--url=http://{address}", f"--trace={trace}", f"--users={load.users}", f"--json={report}",
            f"--csv={table}", "--noprogress"], folder, cores, fine=(0, 3))  # 3: it lagged, and says so
    requests, failed = [], 0
    for entry in csv.DictReader(table.read_text().splitlines()):
        if entry["outcome"] != "ok":
            failed += 1
            continue
        output = int(entry["completion_tokens"])
        requests.append((int(entry["prompt_tokens"]), output, 1e3 * float(entry["ttft_from_send"]),
                         1e3 * float(entry["tpot"]) * (output - 1)))
    run = json.loads(report.read_text())["runs"][0]
    made = figures.of_requests(requests, failed, run["all"]["figures"]["output_tokens_per_second"])
    made.warning = run["self_check"]["failure"]
    return made


TOOLS = {"GuideLLM 0.8.1": guidellm, "AIPerf 0.13.0": aiperf, "sessa-loadtest": sessa_loadtest}


def clean(folder):
    """An empty folder."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    subprocess.run(["find", str(folder), "-mindepth", "1", "-delete"], check=True)
    return pathlib.Path(folder)
