"""The work that every load tester gets, as a trace in the Mooncake format: all three replay it, with the same arrivals (or as a
number of users, who ignore its times) and lengths; no two requests share a block, so no cache helps any of them."""
import json
import random

BLOCK = 512  # tokens of one hash id


def rows(count, rate, input_tokens, output_tokens, seed=1):
    """Poisson arrivals, `rate` a second; lengths uniform in (low, high), both ends included."""
    draw = random.Random(seed)
    made, at, next_id = [], 0.0, 0
    for _ in range(count):
        length = draw.randint(*input_tokens)
        blocks = -(-length // BLOCK)
        made.append({"timestamp": round(at * 1000), "input_length": length, "output_length": draw.randint(*output_tokens),
                     "hash_ids": list(range(next_id, next_id + blocks))})
        next_id += blocks
        at += draw.expovariate(rate)
    return made


def write(path, trace, in_seconds=False):
    """in_seconds: not milliseconds, which the format asks for."""
    with open(path, "w", encoding="utf-8") as file:
        for row in trace:
            file.write(json.dumps({**row, "timestamp": row["timestamp"] / 1000} if in_seconds else row) + "\n")
