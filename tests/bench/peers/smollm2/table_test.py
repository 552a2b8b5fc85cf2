"""The loads' figures and the table, with values that one can count on one's fingers."""
import collections
import contextlib
import io
import unittest

import table
import workloads

Program = collections.namedtuple("Program", "key name weights")


def result(rate, seconds):
    return {"one": {"tokens_per_s": rate}, "many": {"tokens_per_s": 2 * rate}, "prefill512": {"tokens_per_s": 3 * rate},
            "prefill2048": {"tokens_per_s": 4 * rate}, "mix": {"ttft": seconds, "ttft_p99": 2 * seconds, "worst_gap": 3 * seconds},
            "start": seconds, "memory": 1e8 * seconds}


class TableTest(unittest.TestCase):
    def test_who_is_ahead(self):
        measured = [(Program("ours", "us", "bf16"), [result(100, 1)]), (Program("ours-int8", "us", "int8"), [result(200, 0.5)]),
                    (Program("a", "A", "bf16"), [result(40, 1), result(50, 2), result(60, 4)]), (Program("b", "B", "q8_0"), [result(400, 1)])]
        rows = list(table.rows(measured))
        self.assertEqual(rows[0], ["us", "bf16", "100", "200", "300", "400", "1000", "2000", "3000", "1.0", "100"])
        self.assertEqual(rows[2][2], "50 (2.00)")
        self.assertEqual(rows[2][6], "2000 (2.00)")
        self.assertEqual((rows[3][2], rows[3][9]), ("400 (0.50)", "1.0 (2.00)"))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            table.write(measured, "CPU", 2)
        lines = out.getvalue().splitlines()
        self.assertEqual({line.count("|") for line in lines[2:]}, {len(table.COLUMNS) + 3})

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
