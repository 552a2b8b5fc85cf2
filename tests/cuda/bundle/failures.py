"""What a program's output says about its failure, in a few lines: for gtest, check-reference, compute-sanitizer and others."""
import re

MAX_LINES, MAX_LINE = 5, 320
RUN = re.compile(r"^\[ RUN      \] (\S+)", re.M)
OK = re.compile(r"^\[       OK \] (\S+)", re.M)
FAILED = re.compile(r"^\[  FAILED  \] (\S+?)[,\s]", re.M)
SANITIZER = re.compile(r"^========= (?!COMPUTE-SANITIZER|ERROR SUMMARY: 0|LEAK SUMMARY|This tool|Target application|Program hit)(.*)", re.M)
BAD = re.compile(r"FAILED|BEYOND|no such|illegal|[Ee]rror\b|Traceback|INTERNAL|RESOURCE_EXHAUSTED|cannot|Aborted|not the bundle's|No such file")
BITS = re.compile(r"bits ([0-9a-f]{8})|BEYOND|no such")
LAUNCH = re.compile(r"^launch: (.*)$", re.M)


def first_failed_test(text):
    """The first gtest test that failed, or that ran last when the program ended or hung in it; None: there is none."""
    failed, passed = FAILED.findall(text), set(OK.findall(text))
    if failed:
        return failed[0]
    return next((name for name in RUN.findall(text) if name not in passed), None)


def of_gtest(text):
    """The first failure: what was expected of which shape."""
    match = re.search(r"^\S+?:\d+: Failure\n(.*?)(?=^\[|^\S+?:\d+: Failure|\Z)", text, re.M | re.S)
    if not match:
        return []
    lines = [line.strip() for line in match[1].splitlines()]
    shapes = [re.sub(r"^\S+:\d+: ", "", line) for line in lines if re.match(r"\S+:\d+: ", line)]
    said = [line for line in lines if line and line not in ("Failed", "Google Test trace:") and not re.match(r"\S+:\d+: ", line)]
    return ([" | ".join(shapes)] if shapes else []) + said


def lines_of(done):
    """At most MAX_LINES of what a failed program said, the most telling first."""
    text, lines = done.text, []
    test = first_failed_test(text)
    if test:
        lines.append(f"{test}{' did not end' if done.code is None else ''}")
    lines += of_gtest(text)[:2]
    lines += [" ".join(found.split()) for found in SANITIZER.findall(text) if found.strip()][:4]
    if len(lines) < 2:
        lines += [line.strip() for line in text.splitlines() if BAD.search(line) and not line.startswith("[")][:3]
    if not lines:
        lines = [line for line in text.splitlines() if line.strip()][-2:]
    return [line[:MAX_LINE] for line in lines[:MAX_LINES]]


def evidence(text, test=None):
    """What two runs of one check (of one gtest) must agree on if nothing races: the lines that say what differs and by how much."""
    if test:
        text = re.split(r"^\[  FAILED  \] ", text.partition(f"[ RUN      ] {test}\n")[2], maxsplit=1, flags=re.M)[0]
    return [line.strip() for line in text.splitlines() if BITS.search(line)]


def last_launches(text, count=3):
    """The last kernels that a traced program launched."""
    names = []
    for launch in reversed(LAUNCH.findall(text)):
        if launch not in names:
            names.append(launch)
        if len(names) == count:
            break
    return names
