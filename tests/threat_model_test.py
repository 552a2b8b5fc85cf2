#!/usr/bin/env python3
"""Each line of docs/threat-model.md names the tests that show it, and each of them is run by ctest.

A name is `Suite.Test` of GoogleTest as ctest knows it, or `NAME: test_x`, a method in the file of the Python test NAME.
threat_model_test.py CTEST BUILD_DIR checks the tree; --self-test feeds it lines that must fail.
"""
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
PYTHON_TEST = re.compile(r"(?:e2e_)?(\w+): (test_\w+)")


def rows(text):
    """(line number, cells) of the tables' rows."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("|") and not re.fullmatch(r"\|[-|]+\|", line):
            yield number, [cell.strip() for cell in line.strip("|").split("|")]


def check(text, known, methods):
    """What is wrong, one string each. `known`: ctest's names; `methods`: {Python test: its methods}."""
    wrong, lines = [], 0
    for number, cells in rows(text):
        if cells[-1] == "shown by":
            continue
        lines += 1
        names = re.findall(r"`([^`]+)`", cells[-1])
        if len(cells) != 3 or not names:
            wrong.append(f"line {number} names no test")
        for name in names:
            python = PYTHON_TEST.fullmatch(name)
            test = name.split(":")[0]
            if test not in known:
                wrong.append(f"line {number}: ctest runs no {test}")
            elif python and python[2] not in methods.get(python[1], ()):
                wrong.append(f"line {number}: {test} has no {python[2]}")
    if not lines:
        wrong.append("there is no table")
    return wrong


def self_test():
    head = "| what is tried | what stops it | shown by |\n|---|---|---|\n"
    known, methods = {"A.B", "e2e_c"}, {"c": {"test_d"}}
    for line, expected in [("| x | y | `A.B`, `e2e_c: test_d` |", None), ("| x | y | |", "names no test"),
                           ("| x | y | A.B |", "names no test"), ("| x | `A.B` |", "names no test"),
                           ("| x | y | `A.C` |", "runs no A.C"), ("| x | y | `e2e_x: test_d` |", "runs no e2e_x"),
                           ("| x | y | `e2e_c: test_e` |", "has no test_e"), ("", "no table")]:
        wrong = check(head + line + "\n", known, methods)
        assert len(wrong) == (expected is not None) and all(expected in what for what in wrong), (line, wrong)


def main(ctest, build):
    tests = json.loads(subprocess.run([ctest, "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True,
                                      check=True).stdout)["tests"]
    known = {test["name"] for test in tests}
    methods = {path.stem.removesuffix("_test"): set(re.findall(r"^    def (test_\w+)", path.read_text(), re.M))
               for path in ROOT.glob("tests/**/*_test.py")}
    wrong = check((ROOT / "docs" / "threat-model.md").read_text(), known, methods)
    for what in wrong:
        print(f"docs/threat-model.md, {what}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(self_test() if sys.argv[1:] == ["--self-test"] else main(*sys.argv[1:]))
