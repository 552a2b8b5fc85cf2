"""The table of ./dev bench peers --model smollm2: each figure, and how many times better our server's best is."""
import statistics

# Of a result: load, figure, the column's head, how it is written, and whether more is better.
COLUMNS = (
    ("one", "tokens_per_s", "decode, 1 stream, tokens/s", lambda v: f"{v:.0f}", True),
    ("many", "tokens_per_s", "16 streams, tokens/s", lambda v: f"{v:.0f}", True),
    ("prefill512", "tokens_per_s", "prefill of 512, tokens/s", lambda v: f"{v:.0f}", True),
    ("prefill2048", "tokens_per_s", "prefill of 2048, tokens/s", lambda v: f"{v:.0f}", True),
    ("mix", "ttft", "mix: TTFT p50, ms", lambda v: f"{1e3 * v:.0f}", False),
    ("mix", "ttft_p99", "p99, ms", lambda v: f"{1e3 * v:.0f}", False),
    ("mix", "worst_gap", "worst gap, ms", lambda v: f"{1e3 * v:.0f}", False),
    ("start", None, "start to first token, s", lambda v: f"{v:.1f}", False),
    ("memory", None, "memory, MB", lambda v: f"{v * 1e-6:.0f}", False),
)


def is_whole(result):
    return all(load in result for load, *_ in COLUMNS)


def medians(rounds):
    """[value of each column]"""
    return [statistics.median(r[load] if figure is None else r[load][figure] for r in rounds) for load, figure, *_ in COLUMNS]


def beside(ours, value, more_is_better):
    """How many times better ours is; below 1: the other is ahead."""
    return ours / value if more_is_better else value / ours


def rows(measured):
    """measured: [(program, rounds)], ours first. A row of each: its cells, beside our first of the same or coarser weights."""
    values = {program.key: medians(rounds) for program, rounds in measured}
    ours = {"bf16": values.get("ours"), "8 bits": values.get("ours-int8") or values.get("ours")}
    for program, _ in measured:
        reference = ours["bf16" if program.weights in ("bf16", "f16") else "8 bits"]
        cells = []
        for value, mine, (*_, written, more) in zip(values[program.key], reference or [None] * len(COLUMNS), COLUMNS):
            is_peer = not program.key.startswith("ours") and mine is not None
            cells.append(written(value) + (f" ({beside(mine, value, more):.2f})" if is_peer else ""))
        yield [program.name, program.weights, *cells]


def write(measured, cpu, threads):
    print(f"{cpu}, {threads} threads for each program, the client on the same cores. In brackets how many times better "
          "sessa-server is with weights of as many bits; below 1 the peer is ahead.\n")
    heads = ["program", "weights", *(head for _, _, head, _, _ in COLUMNS)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for cells in rows(measured):
        print(f"| {' | '.join(cells)} |")
