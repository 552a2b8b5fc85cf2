"""sessa-loadtest against the real server, over REST and gRPC: what it says is what it asked for."""
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from server_process import ROOT, ServerProcess

BINARY = os.environ["SESSA_LOADTEST_BINARY"]
# Whether the client lags on a busy machine is not what is tested here.
LENIENT = ["--max_send_lag_ms=1e6", "--max_loop_lag_ms=1e6", "--max_cpu_share=1000"]


class LoadtestTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        keys = pathlib.Path(cls.folder.name, "keys")
        keys.write_text("key-a alice\nkey-b bob\n")
        cls.tenants = pathlib.Path(cls.folder.name, "tenants")
        cls.tenants.write_text("key-a alice 1\nkey-b bob 3\n")
        cls.server = ServerProcess(f"--api_keys_file={keys}")
        cls.addClassCleanup(cls.server.stop)

    def run_tool(self, *flags, grpc=False, expect=0, server=None):
        """(JSON report, rows of the CSV) of one run."""
        out = pathlib.Path(self.folder.name, "report.json")
        rows = pathlib.Path(self.folder.name, "requests.csv")
        server = server or self.server
        url = f"grpc://{server.grpc_address}" if grpc else f"http://{server.http_address}"
        done = subprocess.run(
            [BINARY, f"--url={url}", f"--json={out}", f"--csv={rows}", "--api_key=key-a", *LENIENT, *flags],
            capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, expect, done.stderr)
        with open(rows, newline="") as file:
            return json.loads(out.read_text()), list(csv.DictReader(file))

    def check(self, report, prompt, answer):
        """Every request of the only run ended well and had these tokens, by the server's own count."""
        run = report["runs"][0]
        total = run["all"]["requests"]
        self.assertGreater(total, 0)
        self.assertEqual(run["all"]["outcomes"]["ok"], total)
        figures = run["all"]["figures"]
        self.assertEqual(figures["input_tokens"], total * prompt)
        self.assertEqual(figures["output_tokens"], total * answer)
        return run

    def test_lengths_are_exact(self):
        for grpc in (False, True):
            with self.subTest(grpc=grpc):
                report, rows = self.run_tool("--rate=100", "--num_requests=20", "--lengths=40,12", grpc=grpc)
                self.check(report, 40, 12)
                self.assertEqual(len(rows), 20)

    def test_server_metrics_beside_grpc(self):
        report, _ = self.run_tool("--users=2", "--num_requests=6", "--lengths=40,12", "--metrics_interval_seconds=0.1",
                                  f"--metrics_url=http://{self.server.http_address}", grpc=True)
        self.assertGreaterEqual(report["runs"][0]["server_metrics"]["samples"], 2)

    def test_shared_prefixes_are_cached(self):
        for grpc in (False, True):
            with self.subTest(grpc=grpc):
                report, _ = self.run_tool("--users=1", "--num_requests=4", "--lengths=200,2", "--prefixes=1",
                                          "--prefix_tokens=128", f"--seed={7 + grpc}", grpc=grpc)
                run = self.check(report, 200, 2)
                self.assertEqual(run["all"]["figures"]["cached_tokens"], 3 * 128)

    def test_conversations_hit_the_cache_with_their_answers(self):
        for grpc in (False, True):
            with self.subTest(grpc=grpc):
                report, rows = self.run_tool("--users=1", "--num_requests=3", "--turns=3", "--lengths=100,40",
                                             "--turn_input=60", f"--seed={17 + grpc}", grpc=grpc)
                self.assertEqual(len(rows), 3)
                figures = report["runs"][0]["all"]["figures"]
                self.assertEqual(figures["input_tokens"], 100 + 200 + 300)
                # Pages of 64: of the 139 computed tokens 128 are found, of the 239 192.
                self.assertEqual(figures["cached_tokens"], 128 + 192)

    def test_chat_as_text(self):
        # The demo model has no chat template: this copy of it has one.
        model = pathlib.Path(self.folder.name, "chat")
        shutil.copytree(ROOT / "models" / "demo", model)
        config = model / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {
            "chat_template": "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"}))
        server = ServerProcess(model=model)
        self.addCleanup(server.stop)
        report, rows = self.run_tool("--api=chat", "--users=1", "--num_requests=4", "--turns=2", "--lengths=20,5",
                                     server=server)
        self.assertEqual(report["runs"][0]["all"]["outcomes"]["ok"], 4)
        self.assertEqual(report["runs"][0]["all"]["figures"]["output_tokens"], 4 * 5)

    def test_tenants_cancelling_and_probes(self):
        report, rows = self.run_tool("--rate=100", "--num_requests=40", "--lengths=40,30", "--cancel_share=0.5",
                                     f"--tenants_file={self.tenants}", "--api_key=", "--probe_rate=20")
        run = report["runs"][0]
        outcomes = run["all"]["outcomes"]
        self.assertEqual(outcomes["ok"] + outcomes["cancelled"], 40)
        self.assertGreater(outcomes["cancelled"], 5)
        self.assertGreater(run["probes"]["requests"], 0)
        self.assertEqual({tenant["name"] for tenant in run["tenants"]}, {"alice", "bob"})

    def test_a_mix_and_a_trace_scaled_down(self):
        trace = pathlib.Path(self.folder.name, "trace.jsonl")
        trace.write_text("".join(
            json.dumps({"timestamp": 50 * i, "input_length": 1100 + i, "output_length": 30, "hash_ids": [1, 2, 10 + i]})
            + "\n" for i in range(5)))
        report, rows = self.run_tool(f"--trace={trace}", "--max_context=512")
        self.assertEqual(report["runs"][0]["all"]["outcomes"]["ok"], 5)
        self.assertEqual(len(rows), 5)
        report, _ = self.run_tool("--mix=agents", "--users=2", "--num_requests=8", "--max_context=1000", grpc=True)
        self.assertEqual(report["runs"][0]["all"]["outcomes"]["ok"], 8)

    def test_several_rates_are_several_runs(self):
        report, rows = self.run_tool("--rate=40,80", "--num_requests=8", "--lengths=20,4")
        self.assertEqual([run["offered_rate"] for run in report["runs"]], [40, 80])
        self.assertEqual(len(rows), 16)

    def test_a_client_that_lags_exits_with_3(self):
        report, _ = self.run_tool("--rate=80", "--num_requests=4", "--lengths=20,4", "--max_loop_lag_ms=0", expect=3)
        self.assertFalse(report["runs"][0]["self_check"]["ok"])
        self.assertIn("read too late", report["runs"][0]["self_check"]["failure"])

    def test_an_interrupt_still_reports(self):
        out = pathlib.Path(self.folder.name, "interrupted.json")
        tool = subprocess.Popen(
            [BINARY, f"--url=http://{self.server.http_address}", f"--json={out}", "--api_key=key-a", "--rate=20",
             "--lengths=20,4", "--duration_seconds=600", *LENIENT], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seen = b""
        while b" ok" not in seen:  # the progress line: it runs
            seen += tool.stderr.read1()
        tool.send_signal(signal.SIGINT)
        tool.communicate(timeout=60)
        self.assertEqual(tool.returncode, 0)
        self.assertGreater(json.loads(out.read_text())["runs"][0]["all"]["requests"], 0)

    def test_what_cannot_be_run_is_refused_with_a_reason(self):
        def refuse(*flags):
            done = subprocess.run([BINARY, *flags], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
            return done.stderr

        http = f"--url=http://{self.server.http_address}"
        self.assertIn("--rate", refuse(http))
        self.assertIn("401", refuse(http, "--rate=1"))
        self.assertIn("API key", refuse(f"--url=grpc://{self.server.grpc_address}", "--rate=1"))
        self.assertIn("--max_context", refuse(http, "--rate=1", "--api_key=key-a", "--mix=documents"))
        self.assertIn("no model 'x'", refuse(http, "--rate=1", "--api_key=key-a", "--model=x"))
        self.assertIn("refused", refuse("--url=http://127.0.0.1:1", "--rate=1"))
        self.assertIn("127.0.0.1:1", refuse("--url=grpc://127.0.0.1:1", "--rate=1"))


if __name__ == "__main__":
    unittest.main()
