"""The loads' figures and the table, with values that one can count on one's fingers."""
import json
import os
import pathlib
import subprocess
import sys
import time
import unittest

import programs
import registers
import table
import workloads


def result(rate, seconds):
    return {"one": {"tokens_per_s": rate}, "many": {"tokens_per_s": 2 * rate}, "prefill512": {"tokens_per_s": 3 * rate},
            "prefill2048": {"tokens_per_s": 4 * rate}, "mix": {"ttft": seconds, "ttft_p99": 2 * seconds, "worst_gap": 3 * seconds},
            "start": seconds, "memory": 1e8 * seconds, "limits": [20e9 * seconds, 300e9]}


def program(key, name, weights):
    return programs.Program(key, name, weights, ())


class TableTest(unittest.TestCase):
    def test_who_is_ahead(self):
        ours = result(100, 1)
        ours["prefill512"]["registers"], ours["one"]["registers"] = {"AMX": 0.33, "AVX-512": 0.67}, {"AMX": 0.04, "AVX-512": 0.96}
        measured = [(program("ours", "us", "bf16"), [ours]), (program("ours-int8", "us", "int8"), [result(200, 0.5)]),
                    (program("a", "A", "f16"), [result(40, 1), result(50, 2), result(60, 4)]), (program("b", "B", "q8_0"), [result(400, 1)])]
        rows = list(table.rows(measured))
        self.assertEqual(rows[0], ["us", "bf16", "100", "200", "300", "400", "1000", "2000", "3000", "1.0", "100", "AMX 33 %; AVX-512 96 %", "20, 300"])
        self.assertEqual(rows[2][2], "50 (2.00)")
        self.assertEqual(rows[2][6], "2000 (2.00)")
        self.assertEqual((rows[3][2], rows[3][9]), ("400 (0.50)", "1.0 (2.00)"))
        self.assertEqual(rows[2][-2:], ["not seen; not seen", "40, 300"])

    def test_a_failure_costs_its_row_alone(self):
        broken = result(100, 1)
        broken["error"] = "mix: too late"
        lines = table.lines([(program("ours", "us", "bf16"), [result(100, 1)]), (program("a", "A", "bf16"), [broken]),
                             (program("b", "B", "bf16"), [{"start": 1}]), (program("c", "C", "bf16"), [result(50, 1), broken])])
        self.assertEqual({line.count("|") for line in lines[:4]}, {len(table.COLUMNS) + 5})
        self.assertIn("50 (2.00)", lines[3])
        self.assertIn("50 (2.00)", table.line_of(program("c", "C", "bf16"), [result(50, 1)], [(program("ours-f32", "us", "bf16"), [broken]),
                                                                                            (program("ours", "us", "bf16"), [result(100, 1)])]))
        self.assertEqual(lines[4:], ["", "- no row: A, bf16: mix: too late", "- no row: B, bf16: it was not measured to the end"])

    def test_every_program_is_filled_in(self):
        values = {"folder": "F", "work": "W", "model": "M", "port": 1, "ours": "O", "threads": 2}
        for known in programs.PROGRAMS:
            command, environment, flags = programs.fill(known, values)
            self.assertNotRegex(" ".join([*command, *flags, *environment.values()]), r"\{(folder|work|model|port|ours|threads)\}")
        self.assertEqual(len({known.key for known in programs.PROGRAMS}), len(programs.PROGRAMS))

    def test_registers_of_a_running_program(self):
        """Its threads are seen where the system lets them be, and it goes on."""
        self.assertEqual(registers.shares([1 << 18 | 1 << 6, 1 << 7, 1 << 2, 0]), {"AMX": 0.25, "AVX-512": 0.25, "AVX": 0.25})
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            with registers.Watch(lambda: [process.pid], 0.01) as watch:
                while watch.thread.is_alive() and not watch.states:  # nobody may poll() it: that would take the watch's own news of it
                    time.sleep(0.01)
            self.assertIsNone(process.poll())
            stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
            self.assertIn(stat.rsplit(")", 1)[1].split()[0], "RS")
        finally:
            process.kill()
            process.wait()

    def test_a_program_without_a_server(self):
        """It answers each load's name with its figures."""
        script = "import workloads\nleft = {}\ndef step():\n  made = dict.fromkeys(left, 1)\n  [left.__setitem__(n, left[n] - 1) for n in made]\n" \
                 "  [left.pop(n) for n in made if not left[n]]\n  return made\nworkloads.run_in_process(lambda n, p, a: left.__setitem__(n, a), step)"
        done = subprocess.run([sys.executable, "-c", script], input="one quick\nprefill512\n", capture_output=True, text=True, check=True,
                              cwd=pathlib.Path(__file__).parent, env={**os.environ, "PYTHONPATH": "."})
        first, one, prefill = done.stdout.splitlines()
        self.assertEqual(first, "first")
        self.assertGreater(json.loads(one)["tokens_per_s"], 0)
        self.assertGreater(json.loads(prefill)["tokens_per_s"], 0)

    def test_figures(self):
        requests = [(10, [0.5, 0.6, 0.7]), (20, [1.0, 1.4])]
        self.assertAlmostEqual(workloads.figures_of("one", requests, 9)["tokens_per_s"], 3 / 0.6)
        self.assertAlmostEqual(workloads.figures_of("many", requests, 2)["tokens_per_s"], 2.5)
        mix = workloads.figures_of("mix", requests, 2)
        self.assertEqual((mix["ttft"], mix["ttft_p99"]), (1.0, 1.0))
        self.assertAlmostEqual(mix["worst_gap"], 0.4)
        self.assertAlmostEqual(workloads.figures_of("prefill512", requests[:1], 1)["tokens_per_s"], 20)

    def test_replay(self):
        """Two streams at most, and each request gets what it asked for."""
        left, most = {}, 0

        def add(number, prompt, answer):
            self.assertTrue(64 <= len(prompt) <= 64)
            left[number] = answer

        def step():
            nonlocal most
            most = max(most, len(left))
            made = dict.fromkeys(left, 1)
            for number in made:
                left[number] -= 1
            for number in [n for n, count in left.items() if count == 0]:
                del left[number]
            return made

        load = workloads.Load("many", "64,3", 5, users=2)
        self.assertGreater(workloads.replay(load, 1, add, step)["tokens_per_s"], 0)
        self.assertEqual((most, left), (2, {}))
        due = [d for d, _, _ in workloads.replayed(workloads.Load("mix", "8-9,1:7;32,2", 50, rate=10), 1)]
        self.assertEqual(due, sorted(due))
        self.assertTrue(2 < due[-1] < 10)


if __name__ == "__main__":
    unittest.main()
