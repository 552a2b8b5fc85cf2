#!/usr/bin/env python3
"""run.sh of the GPU bundle with stand-ins for its programs: what hangs, fails, races or matches nothing, and what is kept."""
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

BUNDLE = pathlib.Path(__file__).resolve().parent / "bundle"
sys.path.insert(0, str(BUNDLE))
import failures  # noqa: E402
import run as runner  # noqa: E402
import steps  # noqa: E402

# A stand-in does what plan.json says for the first of its patterns that is in its arguments.
STAND_IN = """#!/usr/bin/env python3
import json, os, pathlib, sys, time
name, arguments = pathlib.Path(sys.argv[0]).name, " ".join(sys.argv[1:])
here = pathlib.Path(sys.argv[0]).resolve().parent.parent
with open(here / "calls.txt", "a") as calls:
    calls.write(f"{name} {arguments} {os.environ.get('SESSA_CUDA_SWITCHES', '')}\\n")
for pattern, text, code, seconds in json.loads((here / "plan.json").read_text()).get(name, []):
    if pattern in arguments + " " + os.environ.get("SESSA_CUDA_SWITCHES", ""):
        print(text.replace("RANDOM", str(time.monotonic_ns())), flush=True)
        if "--csv" in sys.argv and code != 3:
            pathlib.Path(sys.argv[sys.argv.index("--csv") + 1]).write_text("benchmark,median_us\\n" + text + "\\n")
        time.sleep(seconds)
        sys.exit(code)
"""
PASSED = "[ RUN      ] Devices/LinearTest.Epilogues/Cuda\n[       OK ] Devices/LinearTest.Epilogues/Cuda (3 ms)\n[  PASSED  ] 1 test."
FAILED = """[ RUN      ] Devices/StateTest.EveryShape/Cuda
tests/kernels/conformance.h:120: Failure
Failed
attention: 12 of 320 values differ, the first at row 3, column 2: 1.25 for 1.5, beyond 1.0e-05 of 3.2; bits {0}
Google Test trace:
tests/kernels/state_fixture.h:210: sequence of 150, steps of 90 60 rows
tests/kernels/state_conformance_test.cc:25: H 4 K 1 d 16 D 100 bf16 page 64

[  FAILED  ] Devices/StateTest.EveryShape/Cuda, where GetParam() = Cuda (5 ms)
[  FAILED  ] Devices/StateTest.EveryShape/Cuda, where GetParam() = Cuda
 1 FAILED TEST"""
HUNG = "[ RUN      ] Devices/SampleTest.Greedy/Cuda\n[       OK ] Devices/SampleTest.Greedy/Cuda (3 ms)\n[ RUN      ] Devices/SampleTest.KeepsExactlyK/Cuda"


class RunTest(unittest.TestCase):
    def setUp(self):
        temp = tempfile.TemporaryDirectory()
        self.addCleanup(temp.cleanup)
        self.bundle = pathlib.Path(temp.name, "gpu-bundle")
        shutil.copytree(BUNDLE, self.bundle)
        (self.bundle / "bin").mkdir()
        self.path = pathlib.Path(temp.name, "path")
        self.path.mkdir()
        self.stand_in(self.bundle / "cuda_libraries.sh", "#!/bin/sh\necho /nowhere\n")
        (self.bundle / "cuda_libraries.txt").write_text("libcublas.so.13\n")
        for name in ("cuda_bench", "cuda_conformance_test", "sessa-check-reference", "wgmma_probe"):
            self.stand_in(self.bundle / "bin" / name, STAND_IN)
        for name in ("compute-sanitizer", "ncu", "nvidia-smi"):
            self.stand_in(self.path / name, "#!/bin/sh\nexit 0\n")
        self.out = self.bundle / "out"

    @staticmethod
    def stand_in(path, text):
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_steps(self, plan, *arguments):
        """(exit code, what was printed)."""
        plan.setdefault("cuda_bench", []).append(["device", "a GPU", 0, 0])
        (self.bundle / "plan.json").write_text(json.dumps(plan))
        environment = {key: value for key, value in os.environ.items() if key != "OUT"}
        done = subprocess.run([self.bundle / "run.sh", *arguments], capture_output=True, text=True, timeout=60, cwd="/",
                              env={**environment, "PATH": f"{self.path}:{os.environ['PATH']}"})
        self.assertEqual(done.stderr, "")
        return done.returncode, done.stdout

    def calls(self):
        return (self.bundle / "calls.txt").read_text().splitlines()

    def test_a_good_build(self):
        code, text = self.run_steps({"cuda_conformance_test": [["", PASSED, 0, 0]], "sessa-check-reference": [["", "ok: 9 tensors", 0, 0]]},
                                    "conformance", "reference")
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"(?m)^ok +conformance +\d+ s$")
        self.assertRegex(text, r"(?m)^ok +reference")
        tested = [call for call in self.calls() if "gtest_filter" in call]
        self.assertEqual(len(tested), 18)  # fixtures x devices, the long tests apart
        self.assertEqual(sum("check-reference" in call for call in self.calls()), 66)

    def test_a_failure_is_named_and_tried_in_other_ways(self):
        plan = {"cuda_conformance_test": [["trace", "launch: FewTileKernel<3>, grid 2 x 1 x 1\nlaunch: FoldKernel, grid 1 x 1 x 1\n" + FAILED.format("0000abcd"), 1, 0],
                                          ["no_overlap", PASSED, 0, 0], ["StateTest.EveryShape/Cuda", FAILED.format("0000abcd"), 1, 0],
                                          ["StateTest.*/Cuda-", FAILED.format("0000abcd"), 1, 0], ["", PASSED, 0, 0]]}
        code, text = self.run_steps(plan, "conformance")
        self.assertEqual(code, 1)
        summary = text[text.index("== summary"):]
        for expected in (r"FAILED +conformance", "StateTest Cuda:", "Devices/StateTest.EveryShape/Cuda",
                         r"steps of 90 60 rows \| H 4 K 1 d 16 D 100 bf16 page 64", r"attention: 12 of 320 values .* row 3, column 2: 1.25 for 1.5",
                         "again: the same values", "no_overlap: passes", "no_graphs: fails too", "last launched: FoldKernel, grid 1 x 1 x 1"):
            self.assertRegex(summary, expected)

    def test_two_runs_that_differ_are_a_race(self):
        different = {"cuda_conformance_test": [["StateTest.EveryShape/Cuda", FAILED.format("0000beef"), 1, 0],
                                               ["StateTest.*", FAILED.format("0000abcd").replace("1.25", "1.26"), 1, 0], ["", PASSED, 0, 0]]}
        _, text = self.run_steps(different, "conformance")
        self.assertIn("again: other values: a race", text)
        flaky = {"cuda_conformance_test": [["StateTest.EveryShape/Cuda", PASSED, 0, 0], ["StateTest.*", FAILED.format("0000abcd"), 1, 0], ["", PASSED, 0, 0]]}
        _, text = self.run_steps(flaky, "conformance")
        self.assertIn("again: passes", text)
        _, text = self.run_steps({"sessa-check-reference": [["gqa", "logits  RANDOM  BEYOND TOLERANCE\nFAILED: 9 tensors", 1, 0], ["", "ok", 0, 0]]}, "reference")
        self.assertRegex(text, r"gqa f32: logits \d+ BEYOND TOLERANCE")
        self.assertIn("again: other values: a race", text)

    def test_what_hangs_costs_its_step_alone(self):
        code, text = self.run_steps({"cuda_conformance_test": [["SampleTest", HUNG, 0, 30], ["", PASSED, 0, 0]], "wgmma_probe": [["", "exact", 0, 0]]},
                                    "--limit", "conformance=1", "--limit", "diagnose=1", "conformance", "probe")
        self.assertEqual(code, 1, text)
        self.assertRegex(text, r"FAILED +conformance +\d+ s  some were not done in their time")
        self.assertIn("no_overlap: hangs", text)
        self.assertIn("Devices/SampleTest.KeepsExactlyK/Cuda did not end", text)
        self.assertRegex(text, r"(?m)^ok +probe")
        left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        self.assertNotIn(str(self.bundle / "bin"), left)

    def test_what_skips_or_matches_nothing_is_no_success(self):
        for text in ("[  PASSED  ] 0 tests.", "[  SKIPPED ] 3 tests.\n[  PASSED  ] 3 tests.", ""):
            code, _ = self.run_steps({"cuda_conformance_test": [["LinearTest", text, 0, 0], ["", PASSED, 0, 0]]}, "conformance")
            self.assertEqual(code, 1, text)
        code, text = self.run_steps({"cuda_bench": [["kernels", "cuda_bench: no benchmark has X in its name", 2, 0]]}, "kernels")
        self.assertEqual(code, 1)
        self.assertIn("no benchmark has X", text)

    def test_a_second_run_keeps_the_first(self):
        plan = {"wgmma_probe": [["", "exact", 0, 0]]}
        self.run_steps(plan, "probe")
        first = (self.out / "run-001" / "summary.txt").read_text()
        self.run_steps({"wgmma_probe": [["", "wrong", 1, 0]]}, "probe")
        self.assertEqual((self.out / "run-001" / "summary.txt").read_text(), first)
        self.assertIn("FAILED", (self.out / "run-002" / "summary.txt").read_text())
        self.assertEqual((self.out / "run-002" / "probe.log").read_text(), "wrong\n")

    def test_after_a_fault_the_other_kernels_are_measured(self):
        plan = {"cuda_bench": [["--filter Solve", "Solve/D:1024,9", 0, 0], ["--filter", "no such", 1, 0], ["kernels", "Linear/m:1,5", 1, 0]]}
        code, text = self.run_steps(plan, "kernels")
        self.assertEqual(code, 1)
        self.assertIn("Solve/D:1024,9", (self.out / "run-001" / "kernels.csv").read_text())
        self.assertNotIn("--filter Linear", "\n".join(self.calls()))

    def test_without_a_gpu(self):
        code, text = self.run_steps({"cuda_bench": [["device", "no GPU can be used", 3, 0]]}, "conformance", "kernels", "profile")
        self.assertEqual(code, 0)
        self.assertEqual(len(re.findall(r"(?m)^skipped .*no GPU$", text)), 3)
        code, text = self.run_steps({"sessa-check-reference": [["", "ok", 0, 0]]}, "--device", "cpu", "--limit", "probe=7", "reference", "probe")
        self.assertEqual(code, 0, text)
        self.assertIn("== reference, at most 400 s", text)  # patience, where no GPU's minutes are spent
        self.assertIn("== probe, at most 7 s", text)
        (self.bundle / "plan.json").write_text("{}")
        done = subprocess.run([self.bundle / "run.sh", "nonsense"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("no step nonsense", done.stderr)

    def test_everything_that_can_fail_fits_the_summary(self):
        long = FAILED.format("0000abcd").replace("H 4", "H " + "4" * 5000)
        code, text = self.run_steps({"cuda_conformance_test": [["", long, 1, 0]], "sessa-check-reference": [["", "x" * 9000 + " BEYOND\n" * 30, 1, 0]],
                                     "wgmma_probe": [["", "wrong\n" * 500, 1, 0]],
                                     "cuda_bench": [["device", "a GPU", 0, 0], ["", "".join(f"Linear/m:{i},{i}\n" for i in range(900)) + "FAILED: " + "y" * 9000, 1, 0]]},
                                    "conformance", "reference", "probe", "kernels", "memcheck", "racecheck", "steps", "variants", "profile")
        self.assertGreater(code, 4)
        self.assertLess(len(text[text.index("== summary"):]), 12000)
        self.assertLess(len(text), 20000)


class LimitsTest(unittest.TestCase):
    def test_what_a_few_minutes_hold(self):
        total = {group: sum(steps.STEPS[name][0] for name in names) for group, names in steps.GROUPS_OF_STEPS.items()}
        self.assertLessEqual(total["right"], 150)
        self.assertLessEqual(steps.STEPS["kernels"][0], 90)
        self.assertLessEqual(sum(total.values()), 600)


class FailuresTest(unittest.TestCase):
    def test_sanitizer_and_others(self):
        done = type("Done", (), {"code": 9, "text": "========= COMPUTE-SANITIZER\n[ RUN      ] A.B/C\n========= Invalid __global__ read of size 16 bytes\n"
                                                    "=========     at FewTileKernel+0x100\n========= ERROR SUMMARY: 1 error\n"})()
        self.assertEqual(failures.lines_of(done)[:3], ["A.B/C", "Invalid __global__ read of size 16 bytes", "at FewTileKernel+0x100"])
        done.text, done.code = "one\ntwo\nthree\n", 1
        self.assertEqual(failures.lines_of(done), ["two", "three"])
        done.text = ""
        self.assertEqual(failures.lines_of(done), [])

    def test_kernel_times(self):
        text = ('==PROF== Connected\n"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
                '"0","1","void sessa::cuda::(anonymous namespace)::LinearKernel<float>(sessa::cuda::LinearArgs)","gpu__time_duration.sum","ns","1,500"\n'
                '"1","1","void sessa::cuda::(anonymous namespace)::LinearKernel<float>(sessa::cuda::LinearArgs)","gpu__time_duration.sum","us","2.5"\n'
                '"2","1","FoldKernel(int)","gpu__time_duration.sum","us","9"\n')
        lines = steps.kernel_times(text)
        self.assertRegex(lines[0], r"13\.0 us in +3 kernels")
        self.assertRegex(lines[1], r"9\.0 us in +1 x .*FoldKernel$")
        self.assertRegex(lines[2], r"4\.0 us in +2 x 1\.5 to 2\.5 us: LinearKernel<float>$")
        self.assertEqual(steps.kernel_times("nothing"), [])

    def test_failures_come_before_the_table(self):
        text = runner.summary_of([("a", "FAILED", 1, "", ["why"])], ["t" * 100] * 500)
        self.assertTrue(text.endswith("why\n"))
        self.assertIn("lines more are in table.txt", text)
        self.assertLess(len(text), 11100)


if __name__ == "__main__":
    unittest.main()
