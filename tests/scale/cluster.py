"""Replicas of sessa-server with the demo model, and the real gateways before them, on loopback ports of the system's choice.

A replica keeps its ports for life, as a pod behind a service keeps its place: killed or drained, it starts again where it was. Every
gateway is its package's own program, told the replicas' addresses and nothing about this server; what it needs of them is in docs/scale.md.
"""
import contextlib
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import server_process  # wants SESSA_ROOT and SESSA_SERVER_BINARY

HEALTH_SECONDS = 1  # between two looks of a gateway at a replica
# What no health check has seen yet, two failures in a row tell: the replica is left out for five seconds. A router's retries, five within
# half a second, else go by prefix to the one that is gone, until it is looked at.
BREAKER = ("--cb-failure-threshold", "2", "--cb-success-threshold", "1", "--cb-timeout-duration-secs", "5")
SETTLE_SECONDS = 4  # from SIGTERM to the first refusal: more than a gateway needs to see that readiness is off


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


class Replica:
    """One server, as often as it is started."""

    def __init__(self, *flags):
        self.port, self.grpc_port, events_port = free_ports(3)
        self.events = f"tcp://127.0.0.1:{events_port}"
        self.flags, self.process = flags, None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = server_process.ServerProcess(
            f"--http_port={self.port}", f"--grpc_port={self.grpc_port}", "--admin_port=off", "--threads=1", "--access_log=off",
            f"--settle_seconds={SETTLE_SECONDS}", "--drain_seconds=20", f"--cache_events={self.events}", *self.flags)

    def kill(self):
        """As a machine that is lost: nothing is said to anybody."""
        self.process.process.kill()
        self.process.process.communicate()

    def drain(self):
        """As Kubernetes ends a pod. The exit code."""
        return self.process.stop()

    def prefix_tokens(self):
        """(looked up, found) in its prefix cache so far."""
        metrics = self.process.metrics()
        return [metrics[f"sessa_prefix_cache_{what}_total"] for what in ("queries", "hits")]


@contextlib.contextmanager
def replicas(count, *flags):
    started = []
    try:
        for _ in range(count):
            started.append(Replica(*flags))
        yield started
    finally:
        for replica in started:
            replica.process.stop()


class Gateway:
    """A running gateway: `url`, and `grpc` where it speaks it."""

    def __init__(self, name, command, port, log, grpc_port=None):
        self.url, self.grpc = f"http://127.0.0.1:{port}", grpc_port and f"grpc://127.0.0.1:{grpc_port}"
        self.name, self.port, self.log = name, port, log
        with open(log, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def get(self, path, timeout=5):
        """(status, body); (0, reason) where nothing answers."""
        try:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)

    def wait(self, known, count, seconds=60):
        """Until `known(self)` counts so many replicas."""
        end = time.monotonic() + seconds
        while known(self) != count:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not know {count} replicas, see {self.log}")
            time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def router(package, policy, binaries, members, work):
    """sglang-router or vllm-router with one of its policies."""
    port, metrics_port = free_ports(2)
    program = [str(binaries / package), *(["launch"] if package == "sglang-router" else [])]
    more = []
    if policy == "kv_aware":  # told of the caches by the replicas
        more = ["--kv-event-model", "demo", "--kv-event-block-size", "64"]
        for member in members:
            more += ["--kv-event-source", f"{member.url}={member.events}"]
    return Gateway(f"{package}, {policy}", [
        *program, "--host", "127.0.0.1", "--port", str(port), "--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port),
        "--policy", policy, "--worker-urls", *(member.url for member in members), "--health-check-endpoint", "/readyz",
        "--health-check-interval-secs", str(HEALTH_SECONDS), "--health-check-timeout-secs", "2", "--health-failure-threshold", "1",
        "--health-success-threshold", "1", "--worker-startup-check-interval", "1", *BREAKER, *more], port, work / f"{package}.log")


def healthy_of_router(gateway):
    status, body = gateway.get("/workers")
    return sum(worker["is_healthy"] for worker in yaml.safe_load(body)["workers"]) if status == 200 else 0


def envoy_config(members, ports):
    """deploy/envoy.yaml, with these replicas in place of the service's name and these ports: HTTP, gRPC, admin."""
    config = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text())
    listeners = config["static_resources"]["listeners"]
    for listener, port in zip([*listeners, config["admin"]], ports, strict=True):
        listener["address"]["socket_address"].update(address="127.0.0.1", port_value=port)
    for cluster, field in zip(config["static_resources"]["clusters"], ("port", "grpc_port"), strict=True):
        cluster["type"] = "STATIC"
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": getattr(member, field)}}}}
            for member in members]}]
    return config


def envoy(binaries, members, work):
    ports = free_ports(3)
    file = work / "envoy.json"
    file.write_text(json.dumps(envoy_config(members, ports)))
    gateway = Gateway("Envoy", [str(binaries / "envoy"), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"],
                      ports[0], work / "envoy.log", ports[1])
    gateway.admin_port = ports[2]
    return gateway


def healthy_of_envoy(gateway):
    """Of the fewer: replicas whose HTTP and those whose gRPC is healthy."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=5)) as connection:
            connection.request("GET", "/clusters?format=json")
            clusters = yaml.safe_load(connection.getresponse().read())["cluster_statuses"]
            return min(sum(host["health_status"].get("eds_health_status") == "HEALTHY" and
                           not set(host["health_status"]) & {"failed_active_health_check", "failed_outlier_check"}
                           for host in cluster.get("host_statuses", ())) for cluster in clusters)
    return 0
