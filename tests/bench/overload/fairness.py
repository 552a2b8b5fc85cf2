"""./dev bench fairness: tenants that ask one server for more than it has. Prints what each was served beside its fair share: of
all that was served each gets by its weight, but no more than it asks for, and what one leaves the others share.
"""
import argparse
import pathlib

import server as servers

ANSWER = 32
LENGTHS = f"64-192,{ANSWER}"

# Each tenant's weight and what it sends, in capacities.
CASES = (
    ("One sends ten times as much as the other", {"much": (1, 5), "little": (1, 0.5)}),
    ("One has four times the weight", {"paid": (4, 3), "free": (1, 3)}),
    ("Ten times the load, and the others want their share", {"much": (1, 10), "one": (1, 1), "two": (1, 1)}),
)


def fair_shares(wanted, weights):
    """Weighted max-min fairness of a capacity of 1: {tenant: share}."""
    shares, left, unmet = {}, 1.0, dict(wanted)
    while unmet:
        unit = left / sum(weights[t] for t in unmet)
        met = [t for t in unmet if unmet[t] <= unit * weights[t]]
        if not met:
            return shares | {t: unit * weights[t] for t in unmet}
        for tenant in met:
            shares[tenant] = unmet.pop(tenant)
            left -= shares[tenant]
    return shares


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--work_dir", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=40, help="of each case")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    model = servers.make_model(arguments.work_dir / f"model-{arguments.hidden}-{arguments.layers}", arguments.hidden, arguments.layers)
    common = (f"--lengths={LENGTHS}",)
    with servers.Server(arguments.build_dir, model) as server:
        capacity = servers.load(arguments.build_dir, server, arguments.work_dir, *common, "--users=48", "--duration_seconds=20",
                                "--warmup_seconds=5", "--cooldown_seconds=1")["all"]["figures"]["requests_per_second"]
    print(f"Capacity, 48 users without pause: {capacity:.1f} requests/s. Each case: {arguments.seconds} s.\n")
    print("| | tenant | weight | sends/s | served/s | share | fair share | TTFT p50 |\n|---|---|---|---|---|---|---|---|")
    for title, tenants in CASES:
        keys, loads = arguments.work_dir / "keys", arguments.work_dir / "tenants"
        keys.write_text("".join(f"key-{name} {name} weight={weight}\n" for name, (weight, _) in tenants.items()))
        loads.write_text("".join(f"key-{name} {name} {sends}\n" for name, (_, sends) in tenants.items()))
        rate = capacity * sum(sends for _, sends in tenants.values())
        with servers.Server(arguments.build_dir, model, f"--api_keys_file={keys}") as server:
            run = servers.load(arguments.build_dir, server, arguments.work_dir, *common, f"--tenants_file={loads}", f"--rate={rate:.3f}",
                               f"--duration_seconds={arguments.seconds}", "--warmup_seconds=10", "--cooldown_seconds=1")
        served = {group["name"]: group for group in run["tenants"]}
        seconds = run["window"]["end"] - run["window"]["begin"]
        sent = {name: served[name]["requests"] / seconds for name in tenants}
        got = {name: served[name]["figures"]["output_tokens_per_second"] / ANSWER for name in tenants}
        there = sum(got.values())
        fair = fair_shares({name: sent[name] / there for name in tenants}, {name: weight for name, (weight, _) in tenants.items()})
        for name, (weight, _) in tenants.items():
            group = served[name]
            ttft = group["latencies"]["ttft"]["p50"]
            print(f"| {title} | {name} | {weight} | {sent[name]:.1f} | {got[name]:.1f} | "
                  f"{100 * got[name] / there:.0f} % | {100 * fair[name]:.0f} % | {'' if ttft is None else f'{ttft:.2f} s'} |")
            title = ""


if __name__ == "__main__":
    main()
