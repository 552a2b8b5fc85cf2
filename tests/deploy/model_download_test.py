"""The init container's script (deploy/components/model-download) against a web server: what it fetches is held against its
sum, what is there stays, what was cut off goes on, and a wrong file never gets its name."""
import functools
import hashlib
import http.server
import pathlib
import re
import subprocess
import tempfile
import threading
import unittest

SCRIPT = pathlib.Path(__file__).parents[2] / "deploy" / "components" / "model-download" / "download.sh"


class Handler(http.server.SimpleHTTPRequestHandler):
    """A folder, in ranges where one is asked for."""

    def do_GET(self):
        path = pathlib.Path(self.directory) / self.path.lstrip("/")
        self.server.asked.append((self.path, self.headers.get("Range")))
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.server.ranges else None
        start = int(match[1]) if match else 0
        if start > 0 and start >= len(data):
            return self.send_error(416)
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, *_):
        pass


class DownloadTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        self.remote, self.list, self.model = root / "remote", root / "list", root / "model"
        (self.remote / "sub").mkdir(parents=True)
        self.list.mkdir()
        self.files = {"config.json": b"{}", "sub/model.safetensors": bytes(range(256)) * 400}
        for name, data in self.files.items():
            (self.remote / name).write_bytes(data)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(self.remote)))
        self.server.asked, self.server.ranges = [], True
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(lambda: (self.server.shutdown(), thread.join(), self.server.server_close()))
        (self.list / "url").write_text(f"http://127.0.0.1:{self.server.server_port}/\n")
        self.write_list(self.files)

    def write_list(self, files):
        lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
        (self.list / "SHA256SUMS").write_text("# of the model\n\n" + lines)

    def run_script(self):
        return subprocess.run(["sh", SCRIPT, self.list, self.model], capture_output=True, text=True, timeout=60)

    def assert_filled(self):
        done = self.run_script()
        self.assertEqual(done.returncode, 0, done.stderr)
        here = {str(p.relative_to(self.model)): p.read_bytes() for p in self.model.rglob("*") if p.is_file()}
        self.assertEqual(here, self.files)

    def test_fills_the_folder_and_keeps_what_is_right(self):
        self.assert_filled()
        self.assertEqual(len(self.server.asked), 2)
        self.assert_filled()
        self.assertEqual(len(self.server.asked), 2)  # nothing was fetched again
        (self.model / "config.json").write_bytes(b"{]")
        self.assert_filled()
        self.assertEqual([path for path, _ in self.server.asked[2:]], ["/config.json"])

    def test_goes_on_where_it_was_cut_off(self):
        part = self.model / "sub" / "model.safetensors.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(self.files["sub/model.safetensors"][:1000])
        self.assert_filled()
        self.assertIn(("/sub/model.safetensors", "bytes=1000-"), self.server.asked)

    def test_a_whole_part_is_taken_if_it_is_right(self):
        part = self.model / "sub" / "model.safetensors.part"
        part.parent.mkdir(parents=True)
        for data in self.files["sub/model.safetensors"], b"x" * 200_000:
            part.write_bytes(data)
            self.assert_filled()
            (self.model / "sub" / "model.safetensors").unlink()
        self.assertEqual([at for path, at in self.server.asked if path.endswith("safetensors")], ["bytes=200000-", None])

    def test_begins_again_where_the_server_has_no_ranges(self):
        self.server.ranges = False
        part = self.model / "sub" / "model.safetensors.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * 1000)
        self.assert_filled()

    def test_a_wrong_sum_ends_it_and_leaves_no_file(self):
        self.write_list({**self.files, "config.json": b"another"})
        done = self.run_script()
        self.assertEqual(done.returncode, 1)
        self.assertIn("config.json has another SHA-256", done.stderr)
        self.assertEqual(list(self.model.rglob("config.json*")), [])

    def test_a_file_that_is_not_there_ends_it(self):
        self.write_list({"gone.json": b""})
        done = self.run_script()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("404", done.stderr)

    def test_names_stay_in_the_folder(self):
        for name in ("../escaped", "/etc/escaped", "a/../../escaped"):
            (self.list / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
            done = self.run_script()
            self.assertEqual((done.returncode, "not a file of the model" in done.stderr), (1, True), name)
        self.assertEqual(self.server.asked, [])


if __name__ == "__main__":
    unittest.main()
