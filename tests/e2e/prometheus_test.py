"""A real Prometheus, with the rules that we ship, scrapes a real server under a small load: it takes every sample, knows every
documented metric, evaluates every rule, and has data for every expression of our dashboards.

    SESSA_SERVER_BINARY=build/release/sessa-server SESSA_ROOT=. python tests/e2e/prometheus_test.py --seconds 60
"""
import argparse
import http.client
import json
import math
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

import grpc_client
from grpc_client import pb
from metrics_test import KEY, rows, samples_of, server_with_key
from server_process import PROMPT, ROOT, wait_until

SECONDS = 10
RATE_INTERVAL = "1h"  # of the dashboards' rates: all that was scraped, however slow the machine is


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Debian's, with deploy/prometheus, on a free port of loopback; it scrapes `target` and evaluates each second."""

    def __init__(self, target):
        self.folder = tempfile.TemporaryDirectory()
        config = (ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text()
        config = re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 1s", config)
        config = config.replace("127.0.0.1:8000", target)
        config = config.replace("rules.yaml", str(ROOT / "deploy" / "prometheus" / "rules.yaml"))
        with open(f"{self.folder.name}/prometheus.yaml", "w") as file:
            file.write(config)
        self.port = free_port()
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={self.folder.name}/prometheus.yaml", f"--storage.tsdb.path={self.folder.name}/data",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.errors, stderr=self.errors)
        wait_until(self.is_ready)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError("prometheus ended:\n" + self.log())
        try:
            return self.get("/-/ready")[0] == 200
        except ConnectionRefusedError:
            return False

    def api(self, path, **parameters):
        status, body = self.get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        body = json.loads(body)
        assert status == 200 and body["status"] == "success", (path, parameters, body)
        return body["data"]

    def query(self, expression):
        """[(labels, value)] of now."""
        return [(series["metric"], float(series["value"][1])) for series in self.api("query", query=expression)["result"]]

    def log(self):
        self.errors.seek(0)
        return self.errors.read()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()
        self.folder.cleanup()


class PrometheusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server_with_key("--served_model_name=the \"demo\" ☃")
        cls.addClassCleanup(cls.server.stop)
        cls.prometheus = Prometheus(cls.server.http_address)
        cls.addClassCleanup(cls.prometheus.stop)
        cls.failures, stop = [], threading.Event()
        clients = [threading.Thread(target=cls.client, args=(stop, number)) for number in range(2)]
        for client in clients:
            client.start()
        time.sleep(SECONDS)
        cls.without_data = set(cls.expressions())
        try:  # while the clients go on, so that it is not the machine's speed that is tested
            wait_until(lambda: not cls.look_for_data(), seconds=60)
        except AssertionError:
            pass
        stop.set()
        for client in clients:
            client.join()

    @classmethod
    def client(cls, stop, number):
        """Small requests of both protocols, of which some share a prefix and some are wrong, with time to think."""
        channel, stub = grpc_client.connect(cls.server)
        with channel:
            for i in range(10**6):
                if stop.wait(0.05):
                    return
                if i % 3 == 2:
                    list(stub.Generate(pb.GenerateRequest(text=f"{i} {PROMPT}", sampling=pb.Sampling(max_tokens=8)), timeout=60,
                                       metadata=(("authorization", KEY),)))
                    continue
                body = {"prompt": (4 if i % 2 else 1) * PROMPT, "max_tokens": 5 + i % 20, "stream": bool(i % 2), "ignore_eos": number == 0}
                status, _, text = cls.server.request("POST", "/v1/completions", body | ({"top_p": 7} if i % 50 == 49 else {}),
                                                      {"Authorization": KEY})
                if status != (400 if i % 50 == 49 else 200):
                    cls.failures.append(text)

    @classmethod
    def look_for_data(cls):
        """Asks what had no data yet; the rest of it."""
        for expression in list(cls.without_data):
            if any(not math.isnan(value) for _, value in cls.prometheus.query(expression)):
                cls.without_data.remove(expression)
        return cls.without_data

    @staticmethod
    def boards():
        return [json.loads(path.read_text()) for path in sorted((ROOT / "deploy" / "grafana").glob("*.json"))]

    @classmethod
    def expressions(cls):
        """Those of the dashboards, as Grafana asks them with all models and instances chosen."""
        values = {"job": "sessa-serve", "model_name": ".*", "instance": ".*", "__rate_interval": RATE_INTERVAL}
        found = [target["expr"] for board in cls.boards() for panel in board["panels"] for target in panel.get("targets", [])]
        return [re.sub(r"\$(\w+)", lambda m: values[m[1]], expression) for expression in found]

    def test_it_is_up(self):
        self.assertEqual(self.failures, [])
        (labels, _), = self.prometheus.query("up")
        self.assertEqual(labels["job"], "sessa-serve")
        # A scrape has but its second here; one that a busy machine did not get to is no failure of the server's.
        wait_until(lambda: [v >= 3 for _, v in self.prometheus.query("sum_over_time(up[1h])")] == [True])
        target = lambda: self.prometheus.api("targets")["activeTargets"][0]
        wait_until(lambda: target()["health"] == "up" or self.assertIn("deadline exceeded", target()["lastError"]))

    def test_no_sample_was_rejected(self):
        own = samples_of(re.sub(r"^.*_info\{.*\n", "", self.prometheus.get("/metrics")[1], flags=re.M))
        rejected = {name: value for name, _, value in own if re.fullmatch(
            r"prometheus_target_scrapes_(sample_.*|exceeded_.*)_total|prometheus_tsdb_out_of_.*_samples_total", name)}
        self.assertIn("prometheus_target_scrapes_sample_duplicate_timestamp_total", rejected)
        self.assertEqual({name for name, value in rejected.items() if value}, set())
        def scraped_and_kept():
            return [value for name in ("scrape_samples_scraped", "scrape_samples_post_metric_relabeling")
                    for _, value in self.prometheus.query(name)]

        all_of_them = len(samples_of(self.server.request("GET", "/metrics")[2]))
        wait_until(lambda: scraped_and_kept() == [all_of_them] * 2)  # the next scrape, where a series came since the last
        log = self.prometheus.log()
        self.assertNotIn("level=error", log)
        self.assertNotIn("ingesting", log)

    def test_it_has_every_documented_metric(self):
        metadata = self.prometheus.api("targets/metadata")
        types = {entry["metric"]: entry["type"] for entry in metadata}
        for row in rows("What is there"):
            name, kind = row[0].strip("`"), row[1]
            with self.subTest(name):
                self.assertEqual(types[name], kind)
                suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
                for suffix in suffixes:
                    found = self.prometheus.query(name + suffix)
                    self.assertTrue(found)
                    if not name.startswith("process_"):
                        self.assertEqual({labels["model_name"] for labels, _ in found}, {'the "demo" ☃'})

    def test_rules_are_evaluated_and_a_server_that_does_well_fires_none(self):
        def all_rules():
            return [rule for group in self.prometheus.api("rules")["groups"] for rule in group["rules"]]

        wait_until(lambda: all(rule["health"] != "unknown" for rule in all_rules()))
        self.assertGreater(len(all_rules()), 20)
        for rule in all_rules():
            self.assertEqual((rule["health"], rule.get("lastError")), ("ok", None), rule["name"])
            if rule["type"] == "alerting":
                self.assertEqual([alert for alert in rule["alerts"] if alert["state"] == "firing"], [])
            else:
                self.assertTrue(self.prometheus.query(rule["name"]), rule["name"])

    def test_every_expression_of_the_dashboards_has_data(self):
        self.assertGreater(len(set(self.expressions())), 70)
        self.assertEqual(self.without_data, set())

    def test_variables_of_the_dashboards_have_values(self):
        for board in self.boards():
            for variable in board["templating"]["list"]:
                if variable["type"] == "query":
                    series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
                    series = series.replace("$job", "sessa-serve").replace("$model_name", ".*")
                    values = self.prometheus.api(f"label/{label}/values", **{"match[]": series})
                    self.assertEqual(len(values), 1, variable["name"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="see above")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the server is under load")
    arguments, rest = parser.parse_known_args()
    SECONDS = arguments.seconds
    unittest.main(argv=[sys.argv[0], *rest])
