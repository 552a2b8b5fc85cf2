"""The manifests and the image against the real server: it knows each of their flags, starts with them, and answers each of
their probes where they ask."""
import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from server_process import BINARY, ServerProcess  # noqa: E402

BASE = ROOT / "deploy" / "base"
OVERLAYS = sorted((ROOT / "deploy" / "overlays").iterdir())
PORT_FLAGS = {"http": "http_port", "grpc": "grpc_port", "admin": "admin_port"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def load(path):
    return yaml.safe_load(path.read_text())


def add(document, path, value):
    """The "add" of RFC 6902, the one operation that the overlays use."""
    *parents, last = path.strip("/").split("/")
    for key in parents:
        document = document[int(key) if isinstance(document, list) else key]
    document.append(value) if isinstance(document, list) else document.update({last: value})


def deployments():
    """{name: Deployment} of the base and of each overlay, as kustomize makes them."""
    found = {"base": load(BASE / "deployment.yaml")}
    for overlay in OVERLAYS:
        document = load(BASE / "deployment.yaml")
        for patch in load(overlay / "kustomization.yaml")["patches"]:
            for operation in yaml.safe_load(patch["patch"]):
                assert operation["op"] == "add"
                add(document, operation["path"], operation["value"])
        found[overlay.name] = document
    return found


def image():
    """The image's (entry point, default arguments)."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    return [json.loads(re.search(rf"^{word} (\[.*\])$", text, re.M).group(1)) for word in ("ENTRYPOINT", "CMD")]


def flags_of(words):
    """{flag: value}, True where there is none."""
    pairs = [word.removeprefix("--").partition("=") for word in words if word.startswith("--")]
    return {name: value if equals else True for name, equals, value in pairs}


def get(address, path):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


class ManifestsTest(unittest.TestCase):
    def each(self):
        for name, deployment in deployments().items():
            with self.subTest(name):
                pod = deployment["spec"]["template"]["spec"]
                (container,) = pod["containers"]
                yield deployment, pod, container

    def test_the_server_knows_every_flag(self):
        known = set(re.findall(r"^  --(\w+)=", subprocess.run([BINARY, "--help"], capture_output=True, text=True).stdout,
                               re.M))
        self.assertIn("api_keys_file", known)
        entry, default = image()
        self.assertEqual(set(flags_of(entry + default)) - known, set())
        for _, _, container in self.each():
            self.assertEqual(set(flags_of(container["args"])) - known, set())

    def test_the_image_starts_as_it_is(self):
        entry, default = image()
        flags = flags_of(entry + default)
        self.assertEqual(flags.pop("model"), "/models/demo")
        server = ServerProcess(*(f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()
                                 if name not in PORT_FLAGS.values()))
        self.addCleanup(server.stop)
        self.assertEqual(server.request("GET", "/v1/models")[0], 200)

    def test_probes_are_answered_where_they_ask(self):
        entry, _ = image()
        for _, _, container in self.each():
            flags = flags_of(entry + container["args"])
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for name, flag in PORT_FLAGS.items():
                self.assertEqual(str(ports[name]), flags.pop(flag), name)
            flags.pop("model")
            with tempfile.NamedTemporaryFile("w", suffix="keys") as keys:
                keys.write(subprocess.run([BINARY, "--make_key=test"], capture_output=True, text=True).stdout)
                keys.flush()
                flags["api_keys_file"] = keys.name
                flags["settle_seconds"] = "0"
                server = ServerProcess(*(f"--{name}={value}" for name, value in flags.items()))
                self.addCleanup(server.stop)
                for probe in PROBES:
                    ask = container[probe]["httpGet"]
                    self.assertEqual(ask["port"], "admin")  # where no load keeps them waiting
                    self.assertEqual(get(server.admin_address, ask["path"]), 200, ask)
                self.assertEqual(get(server.http_address, "/v1/models"), 401)
                self.assertEqual(get(server.admin_address, "/v1/models"), 404)
                self.assertEqual(server.stop(), 0)

    def test_a_starved_probe_drops_no_pod(self):
        for _, _, container in self.each():
            probes = {name: container[name] for name in PROBES}
            for name, probe in probes.items():
                self.assertGreaterEqual(probe["timeoutSeconds"], 3, name)
                self.assertGreaterEqual(probe["failureThreshold"], 3, name)
            seconds = lambda probe: probe["periodSeconds"] * probe["failureThreshold"]
            self.assertGreaterEqual(seconds(probes["livenessProbe"]), 60)
            self.assertLess(seconds(probes["readinessProbe"]), seconds(probes["livenessProbe"]))
            self.assertGreaterEqual(seconds(probes["startupProbe"]), 300)

    def test_a_drain_has_its_time(self):
        for _, pod, container in self.each():
            flags = flags_of(container["args"])
            ends = float(flags["settle_seconds"]) + float(flags["drain_seconds"])
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], ends + 10)  # REST's and gRPC's last events

    def test_keys_come_from_the_secret(self):
        for _, pod, container in self.each():
            flags = flags_of(container["args"])
            self.assertNotIn("insecure", flags)
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            path = pathlib.PurePath(flags["api_keys_file"])
            mount = mounts[str(path.parent)]
            self.assertNotIn("subPath", mount)  # it would never change
            (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
            secret = volume["secret"]["secretName"]
            readme = (ROOT / "deploy" / "README.md").read_text()
            self.assertIn(f"kubectl create secret generic {secret} --from-file={path.name}\n", readme)

    def test_a_pod_has_no_privileges_and_bounds(self):
        for _, pod, container in self.each():
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                            "capabilities": {"drop": ["ALL"]}})
            resources = container["resources"]
            self.assertEqual(set(resources["requests"]), {"cpu", "memory"})
            self.assertIn("memory", resources["limits"])

    def test_service_and_budget_find_the_pods(self):
        service, budget = load(BASE / "service.yaml"), load(BASE / "pdb.yaml")
        for deployment, _, container in self.each():
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            self.assertEqual(deployment["spec"]["selector"]["matchLabels"], labels)
            self.assertEqual(service["spec"]["selector"], labels)
            self.assertEqual(budget["spec"]["selector"]["matchLabels"], labels)
            self.assertGreater(deployment["spec"]["replicas"], budget["spec"]["maxUnavailable"])
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            self.assertEqual({port["targetPort"] for port in service["spec"]["ports"]}, set(ports) - {"admin"})
            annotations = deployment["spec"]["template"]["metadata"]["annotations"]
            self.assertEqual(int(annotations["prometheus.io/port"]), ports["admin"])
        self.assertEqual(set(load(BASE / "kustomization.yaml")["resources"]),
                         {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"})


if __name__ == "__main__":
    unittest.main()
