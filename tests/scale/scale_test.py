"""The figures of docs/scale.md that follow from shapes, on ones that can be counted by hand; and, where ./dev scale has installed it, Envoy
before three replicas one of which is killed."""
import os
import pathlib
import subprocess
import unittest

import capacity
import run

BINARIES = pathlib.Path(os.environ["SESSA_ROOT"]) / "build" / "venv-scale" / "bin"


class CapacityTest(unittest.TestCase):
    def test_shapes(self):
        a, _, c = capacity.SHAPES
        self.assertEqual((a.token_bytes(16), c.token_bytes(16), c.token_bytes(8)), (120 * 1024, 640 * 1024, 320 * 1024))
        self.assertEqual(a.layer_weights, 7.5 * 1024 * 1024)
        self.assertEqual(c.layer_weights * c.layers * 2, 15 * 4096 * 4096 * 32)

    def test_demo_model(self):
        """As the server says of it: 4 KiB a token, one embedding that is the head too."""
        demo = capacity.of_config(pathlib.Path(os.environ["SESSA_ROOT"]) / "models" / "demo" / "config.json")
        self.assertEqual((demo.token_bytes(16), demo.read_bytes()), (4096, demo.weight_bytes()))

    def test_bounds(self):
        # 64 values wide, one layer and head: 8 weights a value's square, 4 x 64 x 2 bytes of state a token.
        tiny = capacity.Shape("tiny", 64, 1, 1, 1, vocab=0)
        self.assertEqual((tiny.layer_weights, tiny.token_bytes(16)), (8 * 4096, 512))
        card = capacity.Card("card", 8 * 4096 * 2 + 512e3 / 0.9, 1e6, 1e9)
        self.assertEqual(capacity.tokens_of(tiny, card, 16), 1000)
        rate, step = capacity.decode(tiny, card, 16, streams=10, context=100)
        self.assertAlmostEqual(step, (65536 + 10 * 100 * 512) / 1e6)
        self.assertAlmostEqual(rate, 10 / step)
        self.assertEqual(capacity.tokens_of(tiny, capacity.Card("small", 100, 1, 1), 16), 0)
        self.assertEqual(list(capacity.rows([tiny], [capacity.Card("small", 100, 1, 1)], 16, [100]))[0][4:], ["0", "0", "", "", ""])


class OutcomesTest(unittest.TestCase):
    def test_what_can_be_retried_is_told_apart(self):
        of = lambda outcome, events: {"outcome": outcome, "events": str(events)}
        self.assertEqual(run.outcomes([of("ok", 3), of("broken", 2), of("broken", 0), of("refused", 0)]), (1, 1, 2))


@unittest.skipUnless((BINARIES / "envoy").exists(), "./dev scale has not installed Envoy")
class EnvoyTest(unittest.TestCase):
    def test_a_killed_replica_costs_what_it_was_saying_alone(self):
        build = pathlib.Path(os.environ["SESSA_SERVER_BINARY"]).parent
        done = subprocess.run([BINARIES / "python", "-B", run.__file__, "--build_dir", build, "--binaries", BINARIES, "--work_dir",
                               build / "scale", "--table", "events", "--quick", "--only", "Envoy"], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
        self.assertEqual([row[0] for row in rows], ["Envoy, REST", "Envoy, gRPC"])
        for _, _, requests, answered, broken, lost, *_ in rows:
            self.assertGreater(int(answered), 100)
            self.assertEqual(int(requests), int(answered) + int(broken))
            self.assertEqual(int(lost), 0)


if __name__ == "__main__":
    unittest.main()
