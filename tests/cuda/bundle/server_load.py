#!/usr/bin/env python3
"""The server with the demo model under load: users who send as their last answer ends, a fifth of whom go away amid it; then it is
asked to stop. Fails when requests fail, when the server does not answer afterwards, or does not end well.

    server_load.py --server BINARY --loadtest BINARY --demo FOLDER --device cuda --seconds 40 --json FILE
"""
import argparse
import json
import re
import subprocess
import sys
import urllib.request


def ask(address):
    body = {"prompt": "Maya said that the red key is in the barn.\nQuestion: Where is the red key?\nAnswer:", "temperature": 0, "max_tokens": 8}
    request = urllib.request.Request(f"http://{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)["choices"][0]["text"]


def main():
    parser = argparse.ArgumentParser()
    for name in ("server", "loadtest", "demo", "device", "json"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    server = subprocess.Popen([arguments.server, f"--model={arguments.demo}", f"--device={arguments.device}", "--http_port=0", "--grpc_port=0",
                               "--access_log=off", "--state_cache_bytes=268435456"], stdout=subprocess.PIPE, text=True)
    failures = []
    try:
        line = server.stdout.readline()
        match = re.fullmatch(r"ready http=(\S+) grpc=\S+.*\n", line)
        if not match:
            sys.exit(f"FAILED: no ready line but {line!r}")
        before = ask(match[1])
        code = subprocess.run([arguments.loadtest, f"--url=http://{match[1]}", "--users=32", "--lengths=64-256,16-64", "--cancel_share=0.2",
                               f"--duration_seconds={arguments.seconds}", "--drain_seconds=10", "--request_timeout_seconds=20",
                               f"--json={arguments.json}", "--noprogress"]).returncode
        if code not in (0, 3):  # 3: the load tester lagged, which is no fault of the server
            failures.append(f"the load tester ended with {code}")
        else:
            with open(arguments.json, encoding="utf-8") as file:
                outcomes = json.load(file)["runs"][0]["all"]["outcomes"]
            said = {name: count for name, count in outcomes.items() if count}
            print(f"requests: {said}")
            # What the load tester ended at its own limits is slow, not wrong.
            if outcomes["ok"] == 0 or said.keys() - {"ok", "cancelled", "deadline"}:
                failures.append(f"requests ended so: {said}")
        after = ask(match[1])
        if after != before:
            failures.append(f"the answer was {before!r} before, {after!r} after")
    except OSError as error:
        failures.append(f"the server does not answer: {error}")
    finally:
        server.terminate()
        try:
            code = server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            code = "none in 20 s"
    if code != 0:
        failures.append(f"the server's exit code: {code}")
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
