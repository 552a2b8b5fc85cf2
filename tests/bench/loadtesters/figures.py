"""What one load tester said of one run, or the server itself, in the same terms. Times in milliseconds."""
import dataclasses
import statistics


@dataclasses.dataclass
class Figures:
    requests: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    ttft: float  # mean, from the send to the first token
    itl: float   # mean of all gaps between tokens
    rate: float  # output tokens a second, from the first send to the last end
    ttft_p50: float = None
    ttft_p99: float = None
    tpot: float = None  # mean over requests of each one's mean gap
    warning: str = ""   # the tool's own word against its figures


def of_requests(requests, failed, rate):
    """requests: (prompt tokens, output tokens, TTFT ms, last token - first token ms) of each that finished."""
    ttft = sorted(r[2] for r in requests)
    gaps = [(r[3], r[1] - 1) for r in requests if r[1] > 1]
    return Figures(len(requests), failed, sum(r[0] for r in requests), sum(r[1] for r in requests), statistics.fmean(ttft),
                   sum(g for g, _ in gaps) / sum(n for _, n in gaps), rate, percentile(ttft, 0.5), percentile(ttft, 0.99),
                   statistics.fmean(g / n for g, n in gaps))


def percentile(ordered, q):
    """Linear between ranks, as numpy's default."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def difference(value, reference):
    return None if value is None or reference is None else 100 * (value / reference - 1)
