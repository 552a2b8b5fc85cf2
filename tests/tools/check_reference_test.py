#!/usr/bin/env python3
"""sessa-check-reference as a person uses it: `check_reference_test.py BINARY DATA`, DATA being tests/reference/data."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

# Of keys and values in bf16, relative to the largest logit: steep scores double the error.
TOLERANCE_OF_BF16_STATE = {"llama": 2e-2, "mistral": 2e-2, "llama_v4": 1e-2, "smollm2": 1e-2, "qwen2": 1e-2, "qwen3": 1e-2}

BINARY, DATA = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()


def check(*arguments, cwd=None):
    done = subprocess.run([BINARY, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


class CheckReferenceTest(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.folder = pathlib.Path(self.temp.name, "copy")
        shutil.copytree(DATA / "one_head", self.folder)

    def edit_expected(self, change):
        """change(header, data) -> data; the header may be edited in place."""
        path = self.folder / "expected.safetensors"
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        header, data = json.loads(raw[8:8 + size]), bytearray(raw[8 + size:])
        data = change(header, data)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    def test_every_folder_in_f32_and_bf16(self):
        for folder in sorted(p for p in DATA.iterdir() if p.is_dir()):
            bf16_tolerance = TOLERANCE_OF_BF16_STATE.get(folder.name, 5e-3)
            for flags in (["--chunk=65"], ["--state_dtype=bf16", "--chunk=17", f"--tolerance={bf16_tolerance}"], ["--tensor_parallel_size=2", "--chunk", "40"],
                          ["--state_dtype=int8", "--chunk=17", f"--tolerance={6 * bf16_tolerance}"],
                          ["--weight_dtype", "bf16", "--page_size=16"]):
                with self.subTest(folder=folder.name, flags=flags):
                    code, out, err = check(folder, *flags)
                    self.assertEqual((code, err), (0, ""), out)
                    self.assertRegex(out, r"(?m)^logits +\d\.\d\de-\d\d$")
                    self.assertRegex(out, r"(?m)^ok: \d+ tensors, ")

    def test_a_folder_anywhere_by_a_relative_path(self):
        code, out, _ = check("copy/", cwd=self.temp.name)
        self.assertEqual(code, 0, out)
        self.assertIn("cache.0.k_f ", out)

    def test_beyond_the_tolerance(self):
        code, out, _ = check(self.folder, "--tolerance=1e-12")
        self.assertEqual(code, 1)
        self.assertRegex(out, r"logits .*BEYOND TOLERANCE")
        self.assertRegex(out, r"(?m)^FAILED: ")

    def test_one_wrong_value_is_found(self):
        def spoil(header, data):
            end = header["cache.0.s"]["data_offsets"][1]
            data[end - 4:end] = struct.pack("<f", 1e3)
            return data
        self.edit_expected(spoil)
        code, out, _ = check(self.folder)
        self.assertEqual(code, 1)
        self.assertEqual([line.split()[0] for line in out.splitlines() if "BEYOND" in line], ["cache.0.s"])

    def test_a_tensor_that_the_model_has_not(self):
        def rename(header, data):
            header["hidden.9"] = header.pop("hidden.0")
            return data
        self.edit_expected(rename)
        code, out, _ = check(self.folder)
        self.assertEqual(code, 1)
        self.assertRegex(out, r"hidden\.9 +the model has no such tensor")

    def test_bad_arguments(self):
        for arguments, expected in [
            ([], "usage"),
            ([self.folder, self.folder], "usage"),
            ([self.folder / "nowhere"], "nowhere"),
            ([self.folder, "--state_dtype=f16"], "dtypes are f32, bf16"),
            ([self.folder, "--activation_dtype=f16"], "--activation_dtype must be"),
            ([self.folder, "--activation_dtype=int8"], "int8 needs int8 weights"),
            ([self.folder, "--activation_dtype=bf16"], "needs bf16 weights"),
            ([self.folder, "--chunk=-1"], "--chunk"),
            ([self.folder, "--page_size=48"], "--page_size"),
            ([self.folder, "--tensor_parallel_size=3"], "--tensor_parallel_size"),
        ]:
            with self.subTest(arguments=arguments[1:]):
                code, out, err = check(*arguments)
                self.assertEqual((code, out), (2, ""))
                self.assertIn(expected, err)
        code, _, err = check(self.folder, "--chunks=3")
        self.assertNotEqual(code, 0)
        self.assertIn("chunks", err)

    def test_bad_folders(self):
        for name, spoil, expected in [
            ("expected.safetensors", lambda path: path.unlink(), "expected.safetensors"),
            ("expected.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
            ("config.json", lambda path: path.write_text("{"), "config.json"),
            ("model.safetensors", lambda path: path.write_bytes(b""), "model.safetensors"),
        ]:
            with self.subTest(name=name, expected=expected):
                shutil.rmtree(self.folder)
                shutil.copytree(DATA / "one_head", self.folder)
                spoil(self.folder / name)
                code, out, err = check(self.folder)
                self.assertEqual((code, out), (2, ""))
                self.assertIn(expected, err)

    def test_bad_input_ids(self):
        def outside(header, data):
            begin = header["input_ids"]["data_offsets"][0]
            data[begin:begin + 8] = struct.pack("<q", -1)
            return data
        self.edit_expected(outside)
        self.assertEqual(check(self.folder)[::2], (2, "check-reference: OUT_OF_RANGE: input_ids: -1 is not in [0, vocab_size)\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
