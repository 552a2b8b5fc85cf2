"""What README.md tells people to type does what it says: its blocks of sh and python run against a server, its ./dev convert lines
make folders that are served."""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

from server_process import ROOT, ServerProcess

TEXT = (ROOT / "README.md").read_text()
sys.path.insert(0, str(ROOT / "models"))
import convert  # noqa: E402


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.M | re.S)
    assert found, language
    return found


class ReadmeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = ServerProcess()
        cls.folder = tempfile.TemporaryDirectory()
        protoc = re.search(r"`python3 (-m grpc_tools\.protoc [^`]*)`", TEXT)[1].replace("-Iproto", f"-I{ROOT / 'proto'}")
        subprocess.run([sys.executable, *shlex.split(protoc)], cwd=cls.folder.name, check=True)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.folder.cleanup()

    def run_block(self, command, text):
        text = text.replace("127.0.0.1:8000", self.server.http_address).replace("127.0.0.1:8001", self.server.grpc_address)
        done = subprocess.run([*command, text], cwd=self.folder.name, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "PYTHONPATH": self.folder.name})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_curl(self):
        (block,) = blocks("sh")
        shown = self.run_block(["bash", "-ec"], block)
        self.assertIn('"finish_reason":"stop"', shown)
        self.assertIn("in the barn", shown)
        self.assertIn("data: [DONE]", shown)

    def test_python(self):
        openai, grpc = blocks("python")
        shown = self.run_block([sys.executable, "-c"], openai)
        self.assertRegex(shown, r"20 \[\d+(, \d+){19}\]")
        self.assertGreater(len(self.run_block([sys.executable, "-c"], grpc)), 20)

    def test_a_checkpoint_of_ones_own(self):
        lines = re.findall(r"^    \./dev convert (.*)$", TEXT, re.M)
        self.assertEqual([line.split()[0] for line in lines], ["state_dict", "random"])
        os.chdir(self.folder.name)
        self.addCleanup(os.chdir, ROOT)
        pathlib.Path("path/to").mkdir(parents=True)
        pathlib.Path("path/to/tokenizer").symlink_to(ROOT / "models" / "demo")
        pathlib.Path("models").symlink_to(ROOT / "models")
        # A model with 16 heads, as a training program saves it: the state_dict's names of a random folder.
        convert.run(["random", "trained", "--hidden_size", 64, "--num_hidden_layers", 1, "--num_attention_heads", 16,
                     "--tokenizer", "models/demo", "--dtype", "F32"])
        state = convert.read_safetensors(pathlib.Path("trained/model.safetensors"))
        convert.write_safetensors("model.safetensors", "F32", {f"model.{name}": t.shape for name, t in state.items()},
                                  lambda name: state[name.removeprefix("model.")])
        for line in lines:
            words = shlex.split(line.replace("--hidden_size 1024 --num_hidden_layers 24", "--hidden_size 128 --num_hidden_layers 2"))
            subprocess.run([sys.executable, ROOT / "models" / "convert.py", *words], check=True, capture_output=True)
            server = ServerProcess(next(word for word in words if word.startswith("checkpoints/")), model=None)
            self.addCleanup(server.stop)
            status, _, body = server.request("POST", "/v1/completions", {"prompt": "One day", "max_tokens": 2, "ignore_eos": True})
            self.assertEqual(status, 200, body)


if __name__ == "__main__":
    unittest.main()
