"""The manifests, the image and the service's unit against the real server: it knows each of their flags, starts with them,
answers each of their probes where they ask, and has the time that they grant it."""
import http.client
import json
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import unittest

import yaml

import kustomize
from kustomize import find, servers, workload

ROOT = kustomize.ROOT
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from server_process import BINARY, ServerProcess, wait_until  # noqa: E402

PORT_FLAGS = {"http": "http_port", "grpc": "grpc_port", "admin": "admin_port"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
DEMO = "/usr/share/sessa-serve/models/demo"
# What this machine has not: a GPU, the volume with a model, KServe's name of the service, the real ports.
ELSEWHERE = {"device", "model", "served_model_name", "host", *PORT_FLAGS.values()}
GROUP = "overlays/leader-worker-set"
VERSION = re.search(r"project\(sessa_serve VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]


def run(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, check=True, **more).stdout


def image():
    """The image's (entry point, default arguments)."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    return [json.loads(re.search(rf"^{word} (\[.*\])$", text, re.M)[1]) for word in ("ENTRYPOINT", "CMD")]


def flags_of(words):
    """{flag: value}, True where there is none; the last of several counts."""
    pairs = [word.removeprefix("--").partition("=") for word in words if word.startswith("--")]
    return {name: value if equals else True for name, equals, value in pairs}


def flags(container):
    return flags_of(image()[0] + container["args"])


def get(address, path, tls=False):
    host, port = address.rsplit(":", 1)
    make = http.client.HTTPSConnection if tls else http.client.HTTPConnection
    connection = make(host, int(port), timeout=60, **({"context": ssl._create_unverified_context()} if tls else {}))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


class ManifestsTest(unittest.TestCase):
    def each(self):
        for overlay, documents, pod, container in servers():
            with self.subTest(overlay):
                yield overlay, documents, pod, container

    def test_the_server_knows_every_flag(self):
        known = set(re.findall(r"^  --(\w+)=", run(BINARY, "--help"), re.M))
        self.assertIn("api_keys_file", known)
        entry, default = image()
        self.assertEqual(set(flags_of(entry + default)) - known, set())
        for _, _, _, container in self.each():
            self.assertEqual(set(flags(container)) - known, set())
        unit = (ROOT / "deploy" / "systemd" / "flags").read_text()
        self.assertEqual(set(re.findall(r"^#?--(\w+)", unit, re.M)) - known, set())

    def test_the_image_starts_as_it_is(self):
        entry, default = image()
        given = flags_of(entry + default)
        self.assertEqual(given.pop("model"), DEMO)
        server = ServerProcess(*(f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()
                                 if name not in PORT_FLAGS.values()))
        self.addCleanup(server.stop)
        self.assertEqual(server.request("GET", "/v1/models")[0], 200)

    def test_probes_are_answered_where_they_ask(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        mounted = {name: f"{folder.name}/{name}" for name in ("keys", "tls.crt", "tls.key")}
        pathlib.Path(mounted["keys"]).write_text(run(BINARY, "--make_key=test"))
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-keyout", mounted["tls.key"], "-out", mounted["tls.crt"])
        started = set()
        for _, _, _, container in self.each():
            given = {name: value for name, value in flags(container).items() if name not in ELSEWHERE}
            if "rank" in given:
                continue  # below
            given = {name: mounted.get(pathlib.PurePath(value).name, value) for name, value in given.items()}
            given["settle_seconds"] = "0"
            asked = [(probe, container[probe]["httpGet"]["path"]) for probe in PROBES]
            if (key := str((sorted(given.items()), asked))) in started:
                continue
            started.add(key)
            server = ServerProcess(*(f"--{name}={value}" for name, value in given.items()))
            self.addCleanup(server.stop)
            for probe, path in asked:
                self.assertEqual(get(server.admin_address, path), 200, probe)
            self.assertEqual(get(server.http_address, "/v1/models", tls="tls_cert" in given), 401)
            self.assertEqual(get(server.admin_address, "/v1/models"), 404)
            self.assertEqual(get(server.admin_address, "/metrics"), 200)
            self.assertEqual(server.stop(), 0)
        self.assertGreaterEqual(len(started), 4)  # the base, TLS, two ranks, KServe's

    def test_a_group_starts_as_its_set_says(self):
        """Both templates with what the controller puts into their environment, but for addresses and the device of this machine."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        keys, secret = (pathlib.Path(folder.name, name) for name in ("keys", "secret"))
        keys.write_text(run(BINARY, "--make_key=test"))
        secret.write_text("a secret for this test\n")
        templates = find(kustomize.build(GROUP), "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
        pods = [templates[name]["spec"] for name in ("leaderTemplate", "workerTemplate")]
        processes = []
        for index, pod in enumerate(pods):
            environment = {"LWS_GROUP_SIZE": str(templates["size"]), "LWS_WORKER_INDEX": str(index), "LWS_LEADER_ADDRESS": "127.0.0.1"}
            given = {name: re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], value)
                     for name, value in flags(pod["containers"][0]).items() if name not in ELSEWHERE}
            port = given["group_address"].rpartition(":")[2]
            self.assertEqual(port, "8003")
            if index == 0:
                self.assertEqual(given["group_address"], "0.0.0.0:8003")
                given |= {"group_address": "127.0.0.1:0", "api_keys_file": keys, "settle_seconds": "0"}
            else:
                log = processes[0].stderr
                wait_until(lambda: "more ranks on " in log())
                given["group_address"] = given["group_address"].replace(port, re.search(r"more ranks on \S+:(\d+)", log())[1])
            given["group_secret_file"] = secret
            processes.append(ServerProcess(*(f"--{name}={value}" for name, value in given.items()), wait=False))
            self.addCleanup(processes[-1].stop)
        for process, pod in zip(processes, pods):
            process.ready()
            for probe in PROBES:
                if probe in pod["containers"][0]:
                    self.assertEqual(get(process.admin_address, pod["containers"][0][probe]["httpGet"]["path"]), 200, probe)
        processes[0].signal()
        self.assertEqual([process.wait() for process in processes], [0, 0])

    def test_ranks_reach_each_other_and_nobody_else(self):
        documents = kustomize.build(GROUP)
        spec = find(documents, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
        leader, rank = (spec[name] for name in ("leaderTemplate", "workerTemplate"))
        ports = {port["name"]: port["containerPort"] for port in leader["spec"]["containers"][0]["ports"]}
        self.assertEqual(ports["group"], int(flags(leader["spec"]["containers"][0])["group_address"].rpartition(":")[2]))
        names = [template["metadata"]["labels"]["app.kubernetes.io/name"] for template in (leader, rank)]
        self.assertEqual(find(documents, "Service")["spec"]["selector"], leader["metadata"]["labels"])
        self.assertNotEqual(*names)  # the ranks get no requests
        policy = find(documents, "NetworkPolicy", "sessa-serve-group")["spec"]
        (expression,) = policy["podSelector"]["matchExpressions"]
        self.assertEqual(sorted(expression["values"]), sorted(names))
        self.assertEqual(policy["ingress"], [{"from": [{"podSelector": policy["podSelector"]}]}])
        self.assertEqual(policy["egress"][0], {"to": [{"podSelector": policy["podSelector"]}]})
        self.assertEqual({port["port"] for rule in policy["egress"][1:] for port in rule["ports"]}, {53})
        # A rank is there for as long as its leader drains.
        self.assertGreater(rank["spec"]["terminationGracePeriodSeconds"], leader["spec"]["terminationGracePeriodSeconds"])
        for same in "resources", "securityContext", "image", "env":
            self.assertEqual(leader["spec"]["containers"][0][same], rank["spec"]["containers"][0][same])
        self.assertEqual(leader["spec"]["securityContext"], rank["spec"]["securityContext"])
        for what in "automountServiceAccountToken", "enableServiceLinks":
            self.assertIs(rank["spec"][what], False)
        known = set(re.findall(r"^  --(\w+)=", run(BINARY, "--help"), re.M))
        self.assertEqual(set(flags(rank["spec"]["containers"][0])) - known, set())
        start = leader["spec"]["containers"][0]["startupProbe"]
        self.assertGreaterEqual(start["periodSeconds"] * start["failureThreshold"], 1200)  # --group_start_seconds, and loading
        readme = (ROOT / "deploy" / "README.md").read_text()
        (secret,) = [v["secret"]["secretName"] for v in rank["spec"]["volumes"] if v["name"] == "group"]
        self.assertIn(f"kubectl create secret generic {secret} --from-file=secret\n", readme)

    def test_ports_are_those_of_the_flags(self):
        for overlay, documents, _, container in self.each():
            given = {name: int(flags(container)[flag]) for name, flag in PORT_FLAGS.items()}
            ports = {port["name"]: port["containerPort"] for port in container["ports"] if port["name"] != "group"}
            for probe in PROBES:  # where no load keeps them waiting
                port = container[probe]["httpGet"]["port"]
                self.assertEqual(ports.get(port, port), given["admin"])
            if overlay.endswith("/kserve"):
                self.assertEqual(set(ports.values()), {given["http"]})
                annotations = find(documents, "ServingRuntime")["spec"]["annotations"]
                self.assertEqual(int(annotations["prometheus.kserve.io/port"]), given["http"])
                continue
            self.assertEqual(ports, given)
            service = find(documents, "Service")
            self.assertEqual({port["targetPort"] for port in service["spec"]["ports"]}, set(ports) - {"admin"})
            tls = "tls_cert" in flags(container)
            self.assertEqual({port["appProtocol"] for port in service["spec"]["ports"]},
                             {"https"} if tls else {"http", "kubernetes.io/h2c"})
            annotations = workload(documents)[1]["metadata"]["annotations"]
            self.assertEqual(int(annotations["prometheus.io/port"]), ports["admin"])
            policy = find(documents, "NetworkPolicy")["spec"]
            self.assertEqual({port["port"] for rule in policy["ingress"] for port in rule["ports"]}, set(ports))

    def test_the_server_can_ask_nobody(self):
        for overlay, documents, pod, _ in self.each():
            if overlay.endswith("/kserve"):
                continue
            labels = workload(documents)[1]["metadata"]["labels"]
            policies = [d["spec"] for d in documents if d["kind"] == "NetworkPolicy" and d["spec"]["podSelector"].get("matchLabels") == labels]
            self.assertTrue(any("Egress" in policy["policyTypes"] for policy in policies))
            ports = {port["port"] for policy in policies for rule in policy.get("egress", []) for port in rule["ports"]}
            self.assertEqual(ports, {443, 53} if "initContainers" in pod else set())

    def test_a_starved_probe_drops_no_pod(self):
        for _, _, _, container in self.each():
            probes = {name: container[name] for name in PROBES}
            for name, probe in probes.items():
                self.assertGreaterEqual(probe["timeoutSeconds"], 3, name)
                self.assertGreaterEqual(probe["failureThreshold"], 3, name)
            seconds = lambda probe: probe["periodSeconds"] * probe["failureThreshold"]
            self.assertGreaterEqual(seconds(probes["livenessProbe"]), 60)
            self.assertLess(seconds(probes["readinessProbe"]), seconds(probes["livenessProbe"]))
            self.assertGreaterEqual(seconds(probes["startupProbe"]), 300)

    def test_a_drain_has_its_time(self):
        for overlay, documents, pod, container in self.each():
            given = flags(container)
            ends = float(given["settle_seconds"]) + float(given["drain_seconds"]) + 5  # REST's and gRPC's last events
            self.assertGreaterEqual(pod.get("terminationGracePeriodSeconds", 30), ends)
            if not overlay.endswith(("/kserve", GROUP)):
                deadline = find(documents, "Deployment")["spec"]["progressDeadlineSeconds"]
                self.assertGreater(deadline, container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"])
        unit = (ROOT / "deploy" / "systemd" / "sessa-serve.service").read_text()
        help_text = run(BINARY, "--help")
        defaults = {name: float(re.search(rf"^  --{name}=(\d+)", help_text, re.M)[1])
                    for name in ("settle_seconds", "drain_seconds", "request_timeout_seconds")}
        self.assertGreaterEqual(int(re.search(r"^TimeoutStopSec=(\d+)", unit, re.M)[1]),
                                defaults["settle_seconds"] + defaults["drain_seconds"] + 5)
        # A gateway cuts nothing off that the server would still answer, and routes what the server has.
        (rule,) = find(kustomize.build("overlays/gateway"), "HTTPRoute")["spec"]["rules"]
        self.assertGreater(int(rule["timeouts"]["request"].removesuffix("s")), defaults["request_timeout_seconds"])
        server = ServerProcess()
        self.addCleanup(server.stop)
        paths = json.loads(server.request("GET", "/openapi.json")[2])["paths"]
        for match in rule["matches"]:
            value = match["path"]["value"]
            self.assertTrue(any(path == value or path.startswith(value + "/") for path in paths), value)

    def test_keys_come_from_the_secret(self):
        for _, _, pod, container in self.each():
            given = flags(container)
            self.assertNotIn("insecure", given)
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            path = pathlib.PurePath(given["api_keys_file"])
            mount = mounts[str(path.parent)]
            self.assertNotIn("subPath", mount)  # it would never change
            secret = volumes[mount["name"]]["secret"]["secretName"]
            readme = (ROOT / "deploy" / "README.md").read_text()
            self.assertIn(f"kubectl create secret generic {secret} --from-file={path.name}\n", readme)

    def test_certificates_are_where_cert_manager_puts_them(self):
        documents = kustomize.build("overlays/keys-and-tls")
        pod = find(documents, "Deployment")["spec"]["template"]["spec"]
        given = flags(pod["containers"][0])
        (volume,) = [v for v in pod["volumes"] if v["name"] == "tls"]
        self.assertEqual(volume["secret"]["secretName"], find(documents, "Certificate")["spec"]["secretName"])
        (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "tls"]
        self.assertNotIn("subPath", mount)
        self.assertEqual([given["tls_cert"], given["tls_key"]], [f"{mount['mountPath']}/tls.crt", f"{mount['mountPath']}/tls.key"])

    def test_a_model_is_where_a_volume_is(self):
        for overlay, _, pod, container in self.each():
            model = flags(container)["model"]
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"] if mount["name"] == "model"}
            if not mounts:
                self.assertIn(model, (DEMO, "/mnt/models"))  # the image's, KServe's
                continue
            ((folder, mount),) = mounts.items()
            self.assertTrue(model.startswith(folder))
            self.assertIs(mount["readOnly"], True)
            for init in pod.get("initContainers", []):
                self.assertEqual(init["command"][-1], model)

    def test_a_pod_has_no_privileges_and_bounds(self):
        for overlay, _, pod, container in self.each():
            if not overlay.endswith("/kserve"):  # KServe makes the pod
                self.assertIs(pod["automountServiceAccountToken"], False)
                self.assertIs(pod["enableServiceLinks"], False)
                self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertRegex((ROOT / "docker" / "Dockerfile").read_text(),
                                 f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}\n")
            for each in [container, *pod.get("initContainers", [])]:
                context = each["securityContext"]
                self.assertEqual([context[k] for k in ("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities")],
                                 [False, True, {"drop": ["ALL"]}])
                self.assertRegex(each["image"], r":v?\d+(\.\d+)*(-\w+)?$")
                # Caches are sized by the limits: what is used must have been asked for.
                self.assertEqual(each["resources"]["requests"]["memory"], each["resources"]["limits"]["memory"])
            self.assertEqual(container["resources"]["requests"], container["resources"]["limits"])

    def test_no_size_is_named_that_the_server_finds(self):
        for _, _, _, container in self.each():
            self.assertEqual({"threads", "state_cache_bytes"} & set(flags(container)), set())

    def test_sizes_follow_the_containers_limits(self):
        """The files of a cgroup of 3 GiB and one core, of which 1.2 GB are pages of files, laid over this machine's own."""
        laid = """mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && echo 3221225472 >memory.max &&
            echo 1321225472 >memory.current && printf 'anon 5\\ninactive_file 1000000000\\nactive_file 200000000\\n' >memory.stat &&
            echo "100000 100000" >cpu.max && echo laid >&2 && exec "$@" """
        server = subprocess.Popen(["unshare", "--mount", "sh", "-c", laid, "sh", BINARY, f"--model={ROOT}/models/demo", "--http_port=0",
                                   "--grpc_port=0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.stdout.readline()  # "ready"
        server.terminate()
        log = server.communicate(timeout=120)[1]
        if not log.startswith("laid"):
            self.skipTest(f"needs root: {log}")
        self.assertIn("on 1 CPU threads", log)
        self.assertIn("of 1.44 GiB;", log)  # half of 3221225472 - (1321225472 - 1200000000)

    def test_the_image_has_the_version_of_the_tree(self):
        self.assertEqual(run(BINARY, "--version"), f"sessa-server {VERSION}\n")
        for overlay, _, _, container in self.each():
            cuda = flags(container).get("device") == "cuda"
            self.assertEqual(container["image"], f"sessa-serve:{VERSION}{'-cuda' * cuda}")
            self.assertEqual("nvidia.com/gpu" in container["resources"]["limits"], cuda)

    def test_as_many_gpus_as_ranks(self):
        for _, _, _, container in self.each():
            given = flags(container)
            ranks = "1" if "rank" in given else given.get("tensor_parallel_size", "1")  # of this process
            self.assertEqual(container["resources"]["limits"].get("nvidia.com/gpu", "1"), ranks)

    def test_others_find_the_pods(self):
        for overlay, documents, _, _ in self.each():
            if overlay.endswith("/kserve"):
                continue
            deployment, template = workload(documents)
            labels = template["metadata"]["labels"]
            self.assertEqual(deployment.get("selector", {"matchLabels": labels})["matchLabels"], labels)
            budget = find(documents, "PodDisruptionBudget")["spec"]
            self.assertGreater(deployment.get("replicas", 2), budget["maxUnavailable"])
            selectors = [budget["selector"], find(documents, "NetworkPolicy")["spec"]["podSelector"]]
            selectors += [spread["labelSelector"] for spread in template["spec"].get("topologySpreadConstraints", [])]
            selectors += [d["spec"]["selector"] for d in documents if d["kind"] == "InferencePool"]
            for selector in selectors:
                self.assertEqual(selector["matchLabels"], labels)
            self.assertEqual(find(documents, "Service")["spec"]["selector"], labels)
            for monitor in [d for d in documents if d["kind"] == "ServiceMonitor"]:
                service = find(documents, "Service", "sessa-serve-metrics")
                wanted = monitor["spec"]["selector"]["matchLabels"].items()
                self.assertLessEqual(wanted, service["metadata"]["labels"].items())
                self.assertFalse(wanted <= find(documents, "Service")["metadata"]["labels"].items())  # not scraped twice
                self.assertEqual(service["metadata"]["labels"][monitor["spec"]["jobLabel"]], "sessa-serve")
                self.assertEqual([e["port"] for e in monitor["spec"]["endpoints"]], [p["name"] for p in service["spec"]["ports"]])
            scalers = [d["spec"] for d in documents if d["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
            self.assertEqual("replicas" in deployment, not scalers)

    def test_metrics_that_others_ask_for_are_there(self):
        server = ServerProcess()
        self.addCleanup(server.stop)
        metrics = set(re.findall(r"^(sessa_\w+)", server.request("GET", "/metrics")[2], re.M))
        asked = set()
        for overlay in kustomize.OVERLAYS:
            for document in kustomize.build(overlay):
                if document["kind"] in ("ScaledObject", "HorizontalPodAutoscaler", "Deployment"):
                    asked |= set(re.findall(r"\bsessa_[a-z_]+", yaml.safe_dump(document)))
        self.assertGreaterEqual(asked, {"sessa_num_requests_waiting", "sessa_state_cache_usage_ratio",
                                        "sessa_kv_cache_usage_perc"})
        self.assertEqual(asked - metrics, set())

    def test_the_rules_are_those_of_the_plain_file(self):
        made = run(ROOT / "deploy" / "prometheus" / "prometheusrule.sh")
        self.assertEqual(made, (ROOT / "deploy" / "prometheus" / "prometheusrule.yaml").read_text())
        plain = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
        self.assertEqual(yaml.safe_load(made)["spec"], plain)

    def test_every_overlay_is_in_the_table(self):
        readme = (ROOT / "deploy" / "README.md").read_text()
        rows = re.findall(r"^\| `([\w-]+)` \|", readme, re.M)
        self.assertEqual(sorted(rows), sorted(o.removeprefix("overlays/") for o in kustomize.OVERLAYS if o != "base"))


if __name__ == "__main__":
    unittest.main()
