"""peer_table.py, with what cuda_bench writes."""
import pathlib
import tempfile
import unittest

import peer_table

OURS = """benchmark,median_us,spread,gb_per_s,of_copy,tflop_per_s,of_gemm,target,met
DecodeStep/A/batch:1/context:2048,1000.000,0.0100,1500.000,0.5000,2.0000,0.0025,30% of copy,met
Solve/D:1024/rows:64/batch:1,10.000,0.0000,0.000,0.0000,1.0000,0.0010,,
"""


class PeerTableTest(unittest.TestCase):
    def lines(self, peers):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "ours.csv")
            file.write_text(OURS)
            return list(peer_table.lines_of(peer_table.read_ours([file, pathlib.Path(folder, "none.csv")]), peers))

    def test_the_same_work_in_another_time(self):
        name = "DecodeStep/A/batch:1/context:2048"
        ours, peer, solve = self.lines({name: [("eager", [0.004, 0.005, 0.0045])]})
        self.assertEqual(ours, (name, "ours", 1000.0, 0.01, 1500.0, 0.5, 2.0, 0.0025, 1.0, "30% of copy: met"))
        self.assertEqual(peer[:2], (name, "eager"))
        for actual, expected in zip(peer[2:9], (4500, 0.001 / 2 / 0.0045, 1500 / 4.5, 0.5 / 4.5, 2 / 4.5, 0.0025 / 4.5, 4.5)):
            self.assertAlmostEqual(actual, expected)
        self.assertEqual((solve[0], solve[1], solve[9]), ("Solve/D:1024/rows:64/batch:1", "ours", None))

    def test_what_we_did_not_measure_has_a_time_alone(self):
        line = self.lines({"PrefillStep/B/rows:2048/context:0": [("eager", [1.0])]})[-1]
        self.assertEqual(line, ("PrefillStep/B/rows:2048/context:0", "eager", 1e6, 0.0, None, None, None, None, None, None))
        self.assertRegex(peer_table.text_of(line), r"^PrefillStep/B/rows:2048/context:0 +eager +1000000\.0 +0\.0%$")

    def test_columns_stand_under_their_names(self):
        header = peer_table.text_of(peer_table.HEADER)
        line = peer_table.text_of(self.lines({})[0])
        self.assertEqual(header.index("GB/s") + 4, line.index("1500") + 4)
        self.assertEqual(header.index("target"), line.index("30%"))


if __name__ == "__main__":
    unittest.main()
