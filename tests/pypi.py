"""Packages of PyPI for what tests compare with, downloaded once into build/downloads by pip."""
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "build" / "downloads"


def download(package, source=False):
    """The file of "name==version": its wheel, or its source distribution, which pip also configures. OSError where it cannot be had."""
    name, version = package.replace("-", "_").split("==")
    ending = ".tar.gz" if source else ".whl"

    def found():
        return [f for f in FOLDER.glob(f"*-{version}*{ending}") if f.name.lower().replace("-", "_").startswith(name)]

    if not found():
        FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
                                   "--no-binary" if source else "--only-binary", ":all:", package, "-d", str(FOLDER)],
                                  capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"pip took more than {error.timeout} s") from error
        if done.returncode != 0 or not found():
            raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    return found()[0]
