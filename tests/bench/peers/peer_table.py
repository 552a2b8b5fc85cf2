"""One table of cuda_bench's lines with those of other programs for the same work: rates and shares of theirs follow from ours,
the same bytes, FLOPs and limits in another time.

    peer_table.py [--peers FILE.json] [--csv FILE] OURS.csv...     a file that is not there was not measured
"""
import argparse
import csv
import json
import pathlib
import statistics

HEADER = ("benchmark", "program", "median us", "spread", "GB/s", "of_copy", "TFLOP/s", "of_gemm", "time, ours = 1", "target")
# Alignment and width of each column, and the form of its numbers.
COLUMNS = (("<44", ""), ("<14", ""), (">12", ".1f"), (">7", ".1%"), (">8", ".0f"), (">8", ".1%"), (">8", ".2f"), (">8", ".1%"),
           (">15", ".2f"), ("", ""))


def read_ours(paths):
    """cuda_bench's lines (--csv) by name, in order."""
    ours = {}
    for path in paths:
        if path.exists():
            ours.update({row["benchmark"]: row for row in csv.DictReader(path.read_text().splitlines())})
    return ours


def lines_of(ours, peers):
    """peers: {name: [(program, seconds of each sample)]}. Yields what HEADER says; None: unknown."""
    for name in [*ours, *(name for name in peers if name not in ours)]:
        rates, our_us = [None] * 4, None
        if row := ours.get(name):
            rates = [float(row[key]) for key in ("gb_per_s", "of_copy", "tflop_per_s", "of_gemm")]
            our_us = float(row["median_us"])
            yield (name, "ours", our_us, float(row["spread"]), *rates, 1.0, ": ".join(filter(None, (row["target"], row["met"]))) or None)
        for program, seconds in peers.get(name, ()):
            median = statistics.median(seconds)
            us, spread = median * 1e6, (max(seconds) - min(seconds)) / 2 / median
            yield (name, program, us, spread, *(rate and rate * our_us / us for rate in rates), our_us and us / our_us, None)


def text_of(line):
    """A line, or the header, with columns of fixed width."""
    cells = ("" if value is None else value if isinstance(value, str) else format(value, form) for value, (_, form) in zip(line, COLUMNS, strict=True))
    return " ".join(format(cell, width) for cell, (width, _) in zip(cells, COLUMNS)).rstrip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=pathlib.Path)
    parser.add_argument("--csv", type=pathlib.Path)
    parser.add_argument("ours", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    peers = json.loads(arguments.peers.read_text()) if arguments.peers and arguments.peers.exists() else {}
    lines = list(lines_of(read_ours(arguments.ours), peers))
    print("\n".join(text_of(line) for line in (HEADER, *lines)))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *lines])


if __name__ == "__main__":
    main()
