"""The steps of run.py. Each gets a Run, and returns a Verdict or raises Skip."""
from __future__ import annotations

import csv
import dataclasses
import glob
import io
import re
import shutil
import sys
import time

import failures
from processes import Command, run, run_chains

PYTHON = [sys.executable, "-B"]


class Skip(Exception):
    """This machine cannot run the step, and why."""


@dataclasses.dataclass
class Verdict:
    ok: bool
    lines: list = dataclasses.field(default_factory=list)  # what failed; of a step that did not, what it found


class Run:
    """What the steps share: where things are, and the time that is left."""

    def __init__(self, here, out, device, has_gpu, environment, limits, say):
        self.here, self.out, self.device, self.has_gpu = here, out, device, has_gpu
        self.environment, self.limits, self.say = environment, limits, say
        self.deadline, self.hung = 0.0, False

    def left(self):
        return self.deadline - time.monotonic()

    def needs_gpu(self):
        if self.device != "cuda":
            raise Skip("needs a GPU")
        if not self.has_gpu:
            raise Skip("no GPU")

    def program(self, name):
        path = self.here / "bin" / name
        if not path.exists():
            raise Skip(f"the bundle has no {name}")
        return str(path)

    def report(self, done):
        self.hung |= done.code is None
        verdict = {0: "ok", None: "not done"}.get(done.code, f"exit code {done.code}")
        self.say(f"   {done.seconds:6.1f} s  {done.name}: {verdict}")

    def one(self, command):
        done = run(command, self.left(), self.environment, self.out)
        self.report(done)
        return done

    def all(self, chains):
        return run_chains(chains, self.left(), self.environment, self.out, self.report)


def start(run):
    """Every program finds all its libraries, and none but the C library's and CUDA's outside the bundle."""
    lines = []
    system = re.compile(r"lib[cm]\.so\.6|lib(pthread|dl|rt|resolv)\.so|linux-vdso|ld-linux|libnccl")
    for program in sorted((run.here / "bin").iterdir()):
        for line in run.one(Command(f"ldd {program.name}", ["ldd", str(program)])).text.splitlines():
            name, _, origin = line.strip().partition(" => ")
            if not origin or system.search(name):
                continue
            if not (origin.startswith("/") and "libcublas" in name or origin.startswith(f"{run.here}/")):
                lines.append(f"{program.name}: {name} is {origin}, not the bundle's")
    if shutil.which("nvidia-smi"):
        run.one(Command("nvidia-smi", ["nvidia-smi"]))
    if run.device == "cuda":
        device = run.one(Command("device", [run.program("cuda_bench"), "device"]))
        if device.code != 0:
            return Verdict(False, lines + failures.lines_of(device) + [f"LD_LIBRARY_PATH={run.environment.get('LD_LIBRARY_PATH', '')}"])
        lines_ok = [device.text.strip().splitlines()[-1]]
    else:
        lines_ok = []
    return Verdict(not lines, lines or lines_ok)


# A fault of the device ends all that its process does on it, and a hang too: each fixture has a process for each device, and the
# long tests have their own, side by side.
LONG = "*/StateTest.LongContext/{0}:*/StateTest.APowerLawImpulse/{0}:*/StateTest.EveryCutIsTheSameBits/{0}"
FIXTURES = {
    "ConformanceTest": "*/ConformanceTest.*/{0}",
    "Int8Test": "*/Int8Test.*/{0}",
    "LinearTest": "*/LinearTest.*/{0}",
    "NormTest": "*/NormTest.*/{0}",
    "SampleTest": "*/SampleTest.*/{0}",
    "ScanTest": "*/ScanTest.*/{0}",
    "SharedPrefixTest": "*/SharedPrefixTest.*/{0}",
    "StateTest": "*/StateTest.*/{0}-" + LONG,
    "StateTest, long": LONG,
}


def passed(done):
    """Tests that ran and passed. Without a usable GPU the suite skips, and a filter may match nothing: neither is a success."""
    return done.code == 0 and re.search(r"PASSED.* [1-9]\d* test", done.text) and "SKIPPED" not in done.text


def conformance(run):
    run.needs_gpu()
    suite = run.program("cuda_conformance_test")
    commands = [[Command(f"{fixture} {device}", [suite, f"--gtest_filter={tests.format(device)}"])]
                for device in ("Cuda", "CudaBatchInvariant") for fixture, tests in FIXTURES.items()]
    failed = [done for done in run.all(commands) if not passed(done)]
    lines = [line for done in failed[:3] for line in [f"{done.name}:", *("  " + line for line in failures.lines_of(done))]]
    if len(failed) > 3:
        lines.append("and " + ", ".join(done.name for done in failed[3:]))
    return Verdict(not failed, lines + (diagnose(run, failed[0]) if failed else []))


def diagnose(run, failed):
    """The first failed test again, in ways that tell causes from each other."""
    test = failures.first_failed_test(failed.text)
    if not test:
        return []
    run.deadline = time.monotonic() + run.limits["diagnose"]
    again = [run.program("cuda_conformance_test"), f"--gtest_filter={test}"]
    ways = {"again": (again, {}),
            "blocking": (again, {"CUDA_LAUNCH_BLOCKING": "1", "SESSA_CUDA_SWITCHES": "trace"}),
            "no_overlap": (again, {"SESSA_CUDA_SWITCHES": "no_overlap"}),
            "no_graphs": (again, {"SESSA_CUDA_SWITCHES": "no_graphs"})}
    sanitizer = find_tool("compute-sanitizer")
    if sanitizer:
        ways["memcheck"] = ([sanitizer, "--tool", "memcheck", "--error-exitcode", "9", *again], {})
    results = {done.name[9:]: done for done in run.all(
        [[Command(f"diagnose {name}", arguments, environment=environment)] for name, (arguments, environment) in ways.items()])}
    lines = [f"diagnosis of {test}:"]
    first, second = failures.evidence(failed.text, test), failures.evidence(results["again"].text, test)
    if passed(results["again"]):
        lines.append("  again: passes, so it depends on what runs beside it or on time: a race")
    elif first and second:
        lines.append("  again: the same values" if first == second else "  again: other values: a race")
    for name in ("blocking", "no_overlap", "no_graphs"):
        lines.append(f"  {name}: {'passes' if passed(results[name]) else 'hangs' if results[name].code is None else 'fails too'}")
    if not passed(results["blocking"]):
        lines += [f"  last launched: {launch[:200]}" for launch in failures.last_launches(results["blocking"].text)]
    if "memcheck" in results:
        lines += [f"  memcheck: {line[:200]}" for line in failures.lines_of(results["memcheck"])[1:4]] or ["  memcheck: nothing"]
    return lines


SETTINGS = {
    "f32": [],
    "chunks": ["--chunk", "33", "--page_size", "16"],
    "bf16": ["--weight_dtype", "bf16", "--state_dtype", "bf16", "--tolerance", "{0}"],
    "bf16 batch-invariant": ["--weight_dtype", "bf16", "--state_dtype", "bf16", "--batch_invariant", "--tolerance", "{1}"],
    "int8 state": ["--state_dtype", "int8", "--tolerance", "{2}"],
    "two ranks": ["--tensor_parallel_size", "2", "--chunk", "50"],  # on one GPU
}


# Each with the tolerances of bf16 (64 rows or more round their inputs, and the scores of some families are steep) and of int8 state, where
# the CPU errs by up to 2.2e-2 and 9.7e-2.
FOLDERS = {folder: ("2e-2", "5e-3", "4e-2") for folder in ("mha", "gqa", "one_head", "no_rope", "long")} | {
    folder: ("8e-2", "2e-2", "1.5e-1") for folder in ("llama", "mistral", "qwen3", "mamba2", "matched_attention", "matched_mamba2")}


def reference(run):
    program = run.program("sessa-check-reference")
    if run.device == "cuda":
        run.needs_gpu()
    chains = [[Command(f"{folder} {name}", [program, str(run.here / "tests/reference/data" / folder), "--device", run.device,
                                            *(flag.format(*tolerances) for flag in flags)])
               for name, flags in SETTINGS.items()] for folder, tolerances in FOLDERS.items()]
    failed = [done for done in run.all(chains) if done.code != 0]
    lines = []
    for done in failed[:4]:
        said = [line for line in done.text.splitlines() if failures.BITS.search(line)] or failures.lines_of(done)
        lines.append(f"{done.name}: " + "; ".join(" ".join(line.split()) for line in said[:4])[:400])
    if failed and run.left() > 1:
        again = run.one(dataclasses.replace(failed[0].command, name="reference again"))
        same = failures.evidence(again.text) == failures.evidence(failed[0].text)
        lines.append("again: " + ("passes: a race" if again.code == 0 else "the same values" if same else "other values: a race"))
    if len(failed) > 4:
        lines.append(f"and {len(failed) - 4} more")
    return Verdict(not failed, lines)


def recall(run):
    """The demo model behind the server: the published answers."""
    if run.device == "cuda":
        run.needs_gpu()
    done = run.all([[Command(f"recall {dtype}", [*PYTHON, str(run.here / "recall_check.py"), "--server", run.program("sessa-server"), "--demo",
                                                 str(run.here / "demo"), "--device", run.device, "--dtype", dtype])] for dtype in ("f32", "bf16")])
    failed = [d for d in done if d.code != 0]
    return Verdict(not failed, [f"{d.name}: {line}" for d in failed for line in failures.lines_of(d)[:3]])


def nccl(run):
    """One rank is a group too."""
    run.needs_gpu()
    program = run.program("nccl_gpu_test")
    found = run.one(Command("nccl library", [str(run.here / "cuda_libraries.sh"), "libnccl.so.2"]))
    if found.code != 0:
        raise Skip("NCCL is not on this machine")
    path = ":".join(filter(None, (run.environment.get("LD_LIBRARY_PATH"), found.text.strip().splitlines()[-1])))
    done = run.one(Command("nccl", [program], environment={"LD_LIBRARY_PATH": path}))
    return Verdict(bool(passed(done)), [] if passed(done) else failures.lines_of(done))


def probe(run):
    """What the sources take for granted of the hardware."""
    run.needs_gpu()
    done = run.one(Command("probe", [run.program("wgmma_probe")]))
    return Verdict(done.code == 0, [line for line in done.text.splitlines() if line.strip()][:16])


GROUPS = ("Linear", "StateRead", "Attend", "FeedbackRead", "Solve", "Sample")


def bench(run, name, limit, arguments, groups=()):
    """cuda_bench; after a fault or a hang, by itself each group that it kept from being measured."""
    run.needs_gpu()
    csv_file = run.out / f"{name}.csv"
    program = run.program("cuda_bench")
    done = run.one(Command(name, [program, "--csv", str(csv_file), *arguments], limit=limit))
    if done.code == 0:
        return Verdict(True)
    measured = csv_file.read_text() if csv_file.exists() else ""
    for group in groups:
        if re.search(rf"^{group}/", measured, re.M) or run.left() < 1:
            continue
        part = run.out / f"{name}.{group}.csv"
        run.one(Command(f"{name} {group}", [program, "--csv", str(part), "--filter", group, *arguments], limit=10))
        if part.exists():
            with csv_file.open("a") as file:
                file.writelines(part.read_text().splitlines(keepends=True)[1 if measured else 0:])
    return Verdict(False, failures.lines_of(done))


def kernels(run):
    return bench(run, "kernels", 55, ["--short", "kernels"], GROUPS)


def all_kernels(run):
    return bench(run, "all_kernels", 100, ["kernels"], GROUPS)


def steps(run):
    return bench(run, "steps", 90, ["steps"])


VARIANTS = ("", "carveout=driver", "carveout=all", "no_overlap", "no_graphs")


def variants(run):
    """Decode steps of shape A with launches as they are, and otherwise."""
    run.needs_gpu()
    lines, ok = [], True
    for switches in VARIANTS:
        file = run.out / f"variant {switches or 'as it is'}.csv"
        done = run.one(Command(f"variant {switches or 'as it is'}", [run.program("cuda_bench"), "--csv", str(file), "--filter", "DecodeStep/A", "steps"],
                               limit=12, environment={"SESSA_CUDA_SWITCHES": switches}))
        ok &= done.code == 0
        rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
        times = [f"{row['benchmark'].partition('/')[2]} {float(row['median_us']):.1f} us" for row in rows if row["benchmark"].startswith("DecodeStep")]
        lines.append(f"{switches or 'as it is'}: " + (", ".join(times) or "; ".join(failures.lines_of(done)[:2])))
    return Verdict(ok, lines)


def peers(run):
    """PyTorch on the same GPU, of the same equations; or a few tiny shapes on a CPU."""
    modules = "import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, ('torch', 'safetensors')))"
    if run.one(Command("peers modules", [*PYTHON, "-c", modules])).code != 0:
        raise Skip("needs Python with PyTorch and safetensors")
    if run.device == "cuda":
        run.needs_gpu()
    done = run.one(Command("peers", [*PYTHON, str(run.here / "tests/bench/peers/gpu_peers.py"), "--out", str(run.out / "peers.json"),
                                     "--device", run.device]))
    return Verdict(done.code == 0, [] if done.code == 0 else failures.lines_of(done))


def load(run):
    """The server under load, a fifth of whose requests go away."""
    run.needs_gpu()
    done = run.one(Command("load", [*PYTHON, str(run.here / "server_load.py"), "--server", run.program("sessa-server"), "--loadtest",
                                    run.program("sessa-loadtest"), "--demo", str(run.here / "demo"), "--device", "cuda", "--seconds", "25",
                                    "--json", str(run.out / "load.json")]))
    wanted = r"requests: |(TTFT|TPOT|ITL|E2E|Output tokens/s|Failed) +[\d.]|FAILED"
    return Verdict(done.code == 0, [line.strip()[:160] for line in done.text.splitlines() if re.match(rf"\s*({wanted})", line)][:8])


def find_tool(name):
    places = [f"/usr/local/cuda*/{folder}/{name}" for folder in ("bin", "compute-sanitizer")]
    return shutil.which(name) or next(iter(sorted(found for place in places for found in glob.glob(place))), None)


# Small shapes: the tools slow kernels down by one or two orders of magnitude, and each of the library's kernels costs a second.
SANITIZED = {
    "ConformanceTest": "*/ConformanceTest.*/CudaSmall-*MemoryIsZero*",  # it asks for more memory than there is
    "LinearTest": "*/LinearTest.*/CudaSmall-*AgreesAtEveryEdge*",
    "NormTest": "*/NormTest.*/CudaSmall",
    "SampleTest": "*/SampleTest.*/CudaSmall",
    "ScanTest": "*/ScanTest.*/CudaSmall",
    "SharedPrefixTest": "*/SharedPrefixTest.ATreeOfPrefixes/CudaSmall",
    **{f"StateTest {test}": f"*/StateTest.{test}/CudaSmall" for test in (
        "EveryShape", "PrefillAtEveryEdge", "PrefillOfEveryWidth", "WidePrefillAtEveryEdge", "FewRowsOfWideState", "ABatchIsTheSameBitsAsAlone")},
}


def sanitize(run, tool, *flags):
    run.needs_gpu()
    program = find_tool("compute-sanitizer")
    if not program:
        raise Skip("compute-sanitizer is not on this machine")
    suite = run.program("cuda_conformance_test")
    done = run.all([[Command(f"{tool} {name}", [program, "--tool", tool, *flags, "--error-exitcode", "9", suite, f"--gtest_filter={tests}"])]
                    for name, tests in SANITIZED.items()])
    if any("Device not supported" in d.text for d in done):
        raise Skip("compute-sanitizer does not support this device")
    failed = [d for d in done if not passed(d)]
    failed.sort(key=lambda d: d.code is None)  # what was found comes before what did not end
    lines = [f"{d.name}: {line}" for d in failed[:3] for line in failures.lines_of(d)[:4]]
    return Verdict(not failed, lines + ([f"and {', '.join(d.name for d in failed[3:])}"] if failed[3:] else []))


def memcheck(run):
    return sanitize(run, "memcheck", "--report-api-errors", "no")


def racecheck(run):
    return sanitize(run, "racecheck")


def profile(run):
    """The time of each kernel of one decode step, alone on the device, by ncu."""
    run.needs_gpu()
    ncu = find_tool("ncu")
    if not ncu:
        raise Skip("ncu is not on this machine")
    done = run.one(Command("profile", [
        ncu, "--profile-from-start", "off", "--clock-control", "none", "--metrics", "gpu__time_duration.sum", "-c", "260", "--csv",
        run.program("cuda_bench"), "--profile", "--filter", "DecodeStep/A/batch:1", "steps"], environment={"SESSA_CUDA_SWITCHES": "no_graphs"}))
    if "ERR_NVGPUCTRPERM" in done.text:
        raise Skip("this machine does not let ncu read the counters")
    table = kernel_times(done.text)
    (run.out / "decode_kernels.txt").write_text("\n".join(table) + "\n")
    return Verdict(done.code == 0 and bool(table), table[:14] if table else failures.lines_of(done))


def kernel_times(text):
    """Lines of how often each kernel ran and how long, of ncu's CSV, the longest first."""
    begin = text.find('"ID",')
    if begin < 0:
        return []
    micros = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3}
    times = {}
    for row in csv.DictReader(io.StringIO(text[begin:])):
        if not row.get("Metric Value") or row.get("Metric Unit") not in micros:
            continue
        name = re.sub(r"sessa::cuda::|\(anonymous namespace\)::|<unnamed>::|^void ", "", row["Kernel Name"])
        times.setdefault(re.sub(r"\(.*", "", name)[:60], []).append(float(row["Metric Value"].replace(",", "")) * micros[row["Metric Unit"]])
    lines = [f"{sum(t):9.1f} us in {len(t):3} x {min(t):.1f} to {max(t):.1f} us: {name}" for name, t in sorted(times.items(), key=lambda i: -sum(i[1]))]
    total = sum(map(sum, times.values()))
    return [f"{total:9.1f} us in {sum(map(len, times.values())):3} kernels of a decode step"] + lines if lines else []


# Name: (seconds, what). Of a good build they take about half.
STEPS = {
    "start": (10, start), "conformance": (60, conformance), "reference": (40, reference), "recall": (30, recall),
    "probe": (15, probe), "kernels": (80, kernels), "memcheck": (45, memcheck), "racecheck": (45, racecheck),
    "steps": (80, steps), "variants": (50, variants), "peers": (45, peers), "load": (50, load), "nccl": (15, nccl), "profile": (35, profile),
    "all_kernels": (130, all_kernels),
}
DIAGNOSE_SECONDS = 30  # more, for conformance when it failed
# What a few minutes with a GPU are for, in this order. Without arguments: all of them.
GROUPS_OF_STEPS = {
    "right": ("start", "conformance", "reference", "recall"),
    "fast": ("probe", "kernels", "memcheck", "racecheck"),
    "rest": ("steps", "variants", "peers", "load", "nccl", "profile"),
}
