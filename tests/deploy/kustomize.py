"""What kubectl makes of deploy/: the documents of the base and of each overlay, and the server's container in them."""
import functools
import pathlib
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (ROOT / "deploy" / "overlays").iterdir())]
# The kubectl of tests/requirements.txt lies beside this Python.
KUBECTL = shutil.which("kubectl", path=pathlib.Path(sys.executable).parent) or shutil.which("kubectl")


@functools.cache
def build(overlay):
    """The documents that `kubectl apply -k` would send, as a list."""
    made = subprocess.run([KUBECTL, "kustomize", ROOT / "deploy" / overlay], capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, f"{overlay}: {made.stderr}"
    return [document for document in yaml.safe_load_all(made.stdout) if document]


def find(documents, kind, name="sessa-serve"):
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def workload(documents):
    """(spec, template of the pods) of the server's Deployment, or of its LeaderWorkerSet: the leader's, which serves."""
    (found,) = [d for d in documents if d["kind"] in ("Deployment", "LeaderWorkerSet") and d["metadata"]["name"] == "sessa-serve"]
    spec = found["spec"]
    return spec, spec["template"] if found["kind"] == "Deployment" else spec["leaderWorkerTemplate"]["leaderTemplate"]


def servers():
    """(overlay, its documents, the pod, the container of the server) of each."""
    for overlay in OVERLAYS:
        documents = build(overlay)
        if overlay.endswith("/kserve"):
            pod = find(documents, "ServingRuntime")["spec"]
        else:
            pod = workload(documents)[1]["spec"]
        (container,) = pod["containers"]
        yield overlay, documents, pod, container
