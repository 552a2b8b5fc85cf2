"""The table of ./dev bench peers --model: each figure, and how many times better our server's best is."""
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
    return "error" not in result and "limits" in result and all(load in result for load, *_ in COLUMNS)


def medians(rounds):
    """[value of each column]"""
    return [statistics.median(r[load] if figure is None else r[load][figure] for r in rounds) for load, figure, *_ in COLUMNS]


def beside(ours, value, more_is_better):
    """How many times better ours is; below 1: the other is ahead."""
    return ours / value if more_is_better else value / ours


def used(rounds):
    """The registers that a prompt's tokens were computed in, and an answer's: less than a twentieth of the looks is another phase's."""
    seen = [next((f"{name} {100 * share:.0f} %" for name, share in rounds[-1][load].get("registers", {}).items() if share >= 0.05), "not seen")
            for load in ("prefill512", "one")]
    return "; ".join(seen)


def rows(measured):
    """measured: [(program, rounds)]. A row of each that was measured whole: its cells, beside our first of weights of as many bits."""
    measured = [(program, whole) for program, rounds in measured if (whole := [r for r in rounds if is_whole(r)])]
    values = {program.key: medians(rounds) for program, rounds in measured}
    ours = {}
    for program, _ in measured:
        if program.is_ours:
            ours.setdefault(program.bits, values[program.key])
    for program, rounds in measured:
        reference = None if program.is_ours else ours.get(program.bits)
        cells = [written(value) + (f" ({beside(mine, value, more):.2f})" if mine is not None else "")
                 for value, mine, (*_, written, more) in zip(values[program.key], reference or [None] * len(COLUMNS), COLUMNS)]
        limits = [statistics.median(r["limits"][n] for r in rounds) * 1e-9 for n in range(2)]
        yield [program.name, program.weights, *cells, used(rounds), f"{limits[0]:.0f}, {limits[1]:.0f}"]


def caption(cpu, threads):
    return (f"{cpu}, {threads} threads for each program, the client on the same cores. In brackets how many times better sessa-server is "
            "with weights of as many bits; below 1 the peer is ahead. Registers: the widest that threads held when "
            "they were looked at, of prompts and of one stream's answers. Limits: what the machine read (GB/s) and multiplied (float32, GFLOP/s) around that row's run.")


def lines(measured):
    """The Markdown table, and why those without a row have none."""
    heads = ["program", "weights", *(head for _, _, head, _, _ in COLUMNS), "registers", "limits"]
    failed = [f"- no row: {program.name}, {program.weights}: {rounds[-1].get('error', 'it was not measured to the end')}"
              for program, rounds in measured if not any(is_whole(r) for r in rounds)]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(cells)} |" for cells in rows(measured)),
            *([""] if failed else []), *failed]
