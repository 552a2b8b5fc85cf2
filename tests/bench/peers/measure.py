"""What every peer program shares: its arguments, its clock and its answer, one line of JSON
{workload name: [seconds of a step, ...]}."""
import argparse
import json
import time

import shape

DECODE_TOKENS = 16  # of one sample


def parse_arguments(dtypes, work_dir=False):
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", choices=dtypes, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--decode_samples", type=int, default=5)
    parser.add_argument("--prefill_samples", type=int, default=2)
    if work_dir:
        parser.add_argument("--work_dir", required=True, help="where the random model's file is kept")
    return parser.parse_args()


def run(arguments, prepare, step):
    """prepare(context): the cache holds exactly `context` tokens. step(rows): one more step. Prints the answer."""
    answer = {}
    for workload in sorted(shape.WORKLOADS, key=lambda w: w.context):  # so that a long context is computed once
        is_decode = workload.rows == 1
        samples = arguments.decode_samples if is_decode else arguments.prefill_samples
        steps = DECODE_TOKENS if is_decode else 1
        prepare(workload.context)
        step(workload.rows)  # warm
        seconds = []
        for _ in range(samples):
            prepare(workload.context)
            begin = time.perf_counter()
            for _ in range(steps):
                step(workload.rows)
            seconds.append((time.perf_counter() - begin) / steps)
        answer[workload.name] = seconds
    print(json.dumps(answer))
