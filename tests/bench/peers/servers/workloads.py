"""The loads of ./dev bench peers --model, as sessa-loadtest sends them to a server and as a program without one replays
them, and the figures that are told of each."""
import dataclasses
import json
import random
import subprocess
import sys
import time

VOCAB = 49152
STREAMS = 16


@dataclasses.dataclass(frozen=True)
class Load:
    key: str
    lengths: str  # of prompt and answer, as sessa-loadtest's --lengths
    requests: int
    users: int = 0  # closed loop; 0: `rate` a second come
    rate: float = 0

    def quick(self):
        """A trial of it: the figures are not to be told."""
        return dataclasses.replace(self, requests=max(1, self.requests // 4))

    def flags(self):
        return [f"--lengths={self.lengths}", f"--num_requests={self.requests}",
                *([f"--users={self.users}"] if self.users else [f"--rate={self.rate}"])]


LOADS = (
    Load("one", "64,128", 3, users=1),
    Load("many", "64,128", 2 * STREAMS, users=STREAMS),
    Load("prefill512", "512,1", 5, users=1),
    Load("prefill2048", "2048,1", 3, users=1),
    Load("mix", "32-128,64:7;2048,16:1", 24, rate=1.0),
)


def figures_of(key, requests, seconds):
    """{figure: value}. requests: [(prompt tokens, seconds to each token from when it was due)]; seconds: the whole run."""
    gaps = [b - a for _, times in requests for a, b in zip(times, times[1:])]
    first = sorted(times[0] for _, times in requests)
    if key == "one":
        return {"tokens_per_s": sum(len(t) - 1 for _, t in requests) / sum(t[-1] - t[0] for _, t in requests)}
    if key == "many":
        return {"tokens_per_s": sum(len(t) for _, t in requests) / seconds}
    if key == "mix":
        return {"ttft": percentile(first, 50), "ttft_p99": percentile(first, 99), "worst_gap": max(gaps)}
    return {"tokens_per_s": percentile(sorted(n / t[0] for n, t in requests), 50)}


def percentile(values, p):
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def seed_of(load):
    return 1 + [known.key for known in LOADS].index(load.key)


def run_loadtest(program, load, address, report, more):
    """The figures of one load on a server, as sessa-loadtest tells them. RuntimeError: it did not serve them all, within two minutes."""
    done = subprocess.run([program, f"--url=http://{address}", "--noprogress", "--metrics_url=none", f"--json={report}",
                           f"--vocab_size={VOCAB}", f"--seed={seed_of(load)}", *load.flags(), *more],
                          capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: the client shares the cores with the server, and lagged
        raise RuntimeError(f"{load.key}: {done.stderr or done.stdout}")
    group = json.loads(report.read_text())["runs"][0]["all"]
    if group["outcomes"].get("ok", group["requests"]) != group["requests"]:
        raise RuntimeError(f"{load.key}: {group['outcomes']} {group['errors']}")
    return of_report(load.key, group)


def of_report(key, group):
    latencies, figures = group["latencies"], group["figures"]
    if key == "one":
        return {"tokens_per_s": 1 / latencies["tpot"]["mean"]}
    if key == "many":
        return {"tokens_per_s": figures["output_tokens_per_second"]}
    if key == "mix":
        return {"ttft": latencies["ttft"]["p50"], "ttft_p99": latencies["ttft"]["p99"], "worst_gap": group["worst_gap"]["seconds"]}
    return {"tokens_per_s": figures["input_tokens"] / group["requests"] / latencies["ttft"]["p50"]}


def replayed(load, seed):
    """[(seconds after the start that it is due, prompt ids, tokens to make)]; with users all are due at once."""
    rng = random.Random(seed)
    kinds = []
    for kind in load.lengths.split(";"):
        lengths, _, weight = kind.partition(":")
        prompt, answer = lengths.split(",")
        low, _, high = prompt.partition("-")
        kinds.append((int(low), int(high or low), int(answer), int(weight or 1)))
    due = 0.0
    for _ in range(load.requests):
        low, high, answer, _ = rng.choices(kinds, [kind[3] for kind in kinds])[0]
        yield due, [rng.randrange(10, VOCAB) for _ in range(rng.randint(low, high))], answer
        due += rng.expovariate(load.rate) if load.rate else 0


def replay(load, seed, add, step):
    """The load on a program in this process. add(id, prompt ids, tokens to make); step() -> {id: tokens that it has made now}."""
    waiting, running, requests = list(replayed(load, seed)), {}, []
    begin = time.perf_counter()
    while waiting or running:
        now = time.perf_counter() - begin
        while waiting and (len(running) < load.users if load.users else waiting[0][0] <= now):
            due, prompt, answer = waiting.pop(0)
            number = len(requests)
            running[number] = answer
            requests.append((len(prompt), now if load.users else due, []))
            add(number, prompt, answer)
        if not running:
            time.sleep(waiting[0][0] - now)
            continue
        made = step()
        now = time.perf_counter() - begin
        for number, count in made.items():
            prompt, due, times = requests[number]
            times += [now - due] * count
            if len(times) >= running[number]:
                del running[number]
    return figures_of(load.key, [(prompt, times) for prompt, _, times in requests], time.perf_counter() - begin)


def run_in_process(add, step):
    """What a program without a server does: says when its first token is there, then answers each line with a load's name, and "quick" if
    it is to be short, by a line with its figures, until there are no more."""
    add(0, [1, 2, 3], 1)
    while not step():
        pass
    print("first", flush=True)
    for line in sys.stdin:
        key, *quick = line.split()
        load = next(load for load in LOADS if load.key == key)
        print(json.dumps(replay(load.quick() if quick else load, seed_of(load), add, step)), flush=True)
