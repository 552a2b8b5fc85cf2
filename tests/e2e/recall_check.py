#!/usr/bin/env python3
"""models/demo/recall.jsonl, its published greedy answers and how many of them are right; what recall_test.py compares with.

As a program, with nothing but Python's own library: starts a server with the demo model, asks it everything and says
whether it answers as published (bf16 arithmetic: whether it knows as much).
    recall_check.py --server BINARY --demo FOLDER [--device cuda] [--dtype bf16]
"""
import argparse
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import urllib.request

ALLOWED_DIFFERENCE = 1  # of right answers at one distance, for arithmetic coarser than float32


def load(demo):
    """(cases, {sentences between: [right, asked]})."""
    cases = [json.loads(line) for line in (demo / "recall.jsonl").read_text().splitlines()]
    expected = {int(filler): [int(right), int(asked)] for filler, right, asked in
                re.findall(r"^\| (\d+) \| (\d+) of (\d+) \|$", (demo / "README.md").read_text(), re.M)}
    return cases, expected


def count_right(cases, texts):
    """{sentences between: [right, asked]} of these answers."""
    right = {}
    for case, text in zip(cases, texts, strict=True):
        entry = right.setdefault(case["filler"], [0, 0])
        entry[0] += text == case["answer"]
        entry[1] += 1
    return right


def knows_as_much(right, expected, allowed=ALLOWED_DIFFERENCE):
    return right.keys() == expected.keys() and all(abs(right[f][0] - expected[f][0]) <= allowed for f in expected)


def ask(address, cases):
    def answer(case):
        body = {"prompt": case["prompt"], "temperature": 0, "max_tokens": 40, "stop": ["\n"]}
        request = urllib.request.Request(f"http://{address}/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as reply:
            return json.load(reply)["choices"][0]["text"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(answer, cases))


def run(arguments, dtype):
    """Whether a server in this format answers as it should."""
    cases, expected = load(arguments.demo)
    server = subprocess.Popen([arguments.server, f"--model={arguments.demo}", f"--device={arguments.device}", "--http_port=0", "--grpc_port=0",
                               "--access_log=off", "--state_cache_bytes=268435456", f"--weight_dtype={dtype}", f"--state_dtype={dtype}"],
                              stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        match = re.fullmatch(r"ready http=(\S+) grpc=\S+.*\n", line)
        if not match:
            print(f"{dtype}: no ready line but {line!r}")
            return False
        texts = ask(match[1], cases)
    finally:
        server.terminate()
        code = server.wait()
    right = count_right(cases, texts)
    differing = sum(text != case["greedy_text"] for case, text in zip(cases, texts))
    good = right == expected and differing == 0 if dtype == "f32" else knows_as_much(right, expected)
    print(f"{dtype}: right, asked at so many sentences between: {right}, texts that differ: {differing}, exit code {code}: "
          f"{'ok' if good and code == 0 else 'FAILED'}")
    return good and code == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--demo", required=True, type=pathlib.Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("f32", "bf16"), action="append", help="of weights and state; default: both, one after the other")
    arguments = parser.parse_args()
    results = [run(arguments, dtype) for dtype in arguments.dtype or ("f32", "bf16")]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
