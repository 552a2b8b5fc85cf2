"""Of the comparison of load testers what can be wrong without a server: sums, and the work."""
import json
import pathlib
import tempfile
import unittest

import figures
import workload


class FiguresTest(unittest.TestCase):
    def test_of_requests(self):
        # Gaps: 30 ms in 3, and 90 ms in 1; a request of one token has none.
        made = figures.of_requests([(10, 4, 100.0, 30.0), (20, 2, 300.0, 90.0), (5, 1, 200.0, 0.0)], 2, 7.5)
        self.assertEqual((made.requests, made.failed, made.prompt_tokens, made.output_tokens, made.rate), (3, 2, 35, 7, 7.5))
        self.assertEqual((made.ttft, made.ttft_p50), (200, 200))
        self.assertAlmostEqual(made.ttft_p99, 298)
        self.assertAlmostEqual(made.itl, 30)
        self.assertAlmostEqual(made.tpot, 50)

    def test_difference(self):
        self.assertAlmostEqual(figures.difference(105, 100), 5)
        self.assertIsNone(figures.difference(None, 100))


class WorkloadTest(unittest.TestCase):
    def test_rows(self):
        rows = workload.rows(200, 2, (500, 1100), (3, 5))
        self.assertEqual(rows, workload.rows(200, 2, (500, 1100), (3, 5)))
        self.assertNotEqual(rows, workload.rows(200, 2, (500, 1100), (3, 5), seed=2))
        self.assertEqual(rows[0]["timestamp"], 0)
        self.assertAlmostEqual(rows[-1]["timestamp"] / 1000, 100, delta=25)
        ids = [i for row in rows for i in row["hash_ids"]]
        self.assertEqual(ids, list(range(len(ids))))
        for row in rows:
            self.assertEqual(len(row["hash_ids"]), -(-row["input_length"] // workload.BLOCK))
            self.assertTrue(500 <= row["input_length"] <= 1100 and 3 <= row["output_length"] <= 5)

    def test_write(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "trace"
            row = {"timestamp": 1500, "input_length": 1, "output_length": 1, "hash_ids": [0]}
            workload.write(path, [row])
            self.assertEqual(json.loads(path.read_text()), row)
            workload.write(path, [row], in_seconds=True)
            self.assertEqual(json.loads(path.read_text())["timestamp"], 1.5)


if __name__ == "__main__":
    unittest.main()
