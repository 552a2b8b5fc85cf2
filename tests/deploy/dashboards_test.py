"""The dashboards as Grafana reads them, and that every alert has a scenario."""
import json
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
sys.path.insert(0, str(GRAFANA))
import dashboards  # noqa: E402

UNITS = {"none", "s", "reqps", "ops", "percentunit", "bytes"}
BUILT_IN = {"__rate_interval"}


class DashboardsTest(unittest.TestCase):
    def setUp(self):
        self.boards = {path.stem: json.loads(path.read_text()) for path in GRAFANA.glob("*.json")}

    def panels(self):
        for name, board in self.boards.items():
            for panel in board["panels"]:
                with self.subTest(board=name, panel=panel["title"]):
                    yield board, panel

    def test_they_are_what_the_generator_writes(self):
        self.assertEqual(self.boards, {"service": dashboards.service(), "operator": dashboards.operator()},
                         "run deploy/grafana/dashboards.py")

    def test_ids_are_unique(self):
        self.assertEqual(len({board["uid"] for board in self.boards.values()}), len(self.boards))
        for board in self.boards.values():
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)))
            titles = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]
            self.assertEqual(len(titles), len(set(titles)))

    def test_panels_do_not_overlap(self):
        for board in self.boards.values():
            taken = {}
            for panel in board["panels"]:
                at = panel["gridPos"]
                self.assertLessEqual(at["x"] + at["w"], 24)
                for x in range(at["x"], at["x"] + at["w"]):
                    for y in range(at["y"], at["y"] + at["h"]):
                        self.assertNotIn((x, y), taken, (panel["title"], taken.get((x, y))))
                        taken[x, y] = panel["title"]

    def test_panels_are_whole(self):
        for board, panel in self.panels():
            if panel["type"] == "row":
                continue
            self.assertIn(panel["type"], ("stat", "timeseries", "heatmap", "table"))
            self.assertTrue(panel["description"].endswith("."))
            self.assertIn(panel["fieldConfig"]["defaults"]["unit"], UNITS)
            self.assertEqual(panel["datasource"]["uid"], "${datasource}")
            references = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(references), len(set(references)))
            for target in panel["targets"]:
                self.assertEqual(target["datasource"], panel["datasource"])
                self.assertTrue(target["expr"])
                self.assertNotEqual(target["instant"], target["range"])
                self.assertTrue(len(panel["targets"]) == 1 or target["legendFormat"] != "__auto")

    def test_variables_are_defined_before_their_use(self):
        for board in self.boards.values():
            known = set()
            for variable in board["templating"]["list"]:
                self.assertLessEqual(set(re.findall(r"\$\{?(\w+)", json.dumps(variable))) - {"__all"}, known)
                known.add(variable["name"])
            for panel in board["panels"]:
                for target in panel.get("targets", []):
                    self.assertLessEqual(set(re.findall(r"\$\{?(\w+)", target["expr"])), known | BUILT_IN, target["expr"])

    def test_every_alert_has_a_scenario_in_which_it_fires(self):
        rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
        scenarios = "".join((pathlib.Path(__file__).parent / name).read_text() for name in ("alerts.yaml", "slow_burn.yaml"))
        alerts = re.findall(r"- alert: (\w+)", rules)
        self.assertEqual(len(alerts), len(set(alerts)))
        self.assertEqual({alert for alert in alerts if f'alertname="{alert}"' not in scenarios}, set())
        self.assertEqual(rules.count("severity: critical") + rules.count("severity: warning"), len(alerts))
        self.assertEqual((rules.count("summary: "), rules.count("description: ")), (len(alerts), len(alerts)))
        documented = re.findall(r"`(Sessa\w+)`", (ROOT / "docs" / "metrics.md").read_text())
        self.assertEqual(sorted(documented), sorted(alerts))


if __name__ == "__main__":
    unittest.main()
