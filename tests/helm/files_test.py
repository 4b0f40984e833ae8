#!/usr/bin/env python3
"""The chart's files, without helm: documented, strict, and naming only metrics that the real server has.

usage: files_test.py BIN_DIR
"""
import json
import pathlib
import re
import sys
import tempfile
import unittest

import jsonschema
import yaml

import chart
import server
from chart import CHART, ROOT

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
VALUES, SCHEMA = CHART / "values.yaml", json.loads((CHART / "values.schema.json").read_text())
# What Prometheus adds when it scrapes.
TARGET_LABELS = {"namespace", "pod", "job", "instance", "le", "sluice_track", "rollouts_pod_template_hash"}
# Free by nature: somebody else's shapes.
FREE = ("global", "commonLabels", "commonAnnotations", "annotations", "labels", "requests", "limits", "affinity",
        "nodeSelector", "podLabels", "podAnnotations", "qosPolicies", "rollouts", "featureFlags")


def objects(schema, path=""):
    if schema.get("type") == "object" or "properties" in schema:
        yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from objects(node, f"{path}.{name}" if path else name)


def keys(values, path=""):
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        yield here
        if isinstance(value, dict):
            yield from keys(value, here)


class Values(unittest.TestCase):
    def test_generated_parts_are_up_to_date(self):
        done = chart.run(sys.executable, "-B", ROOT / "scripts/helm-values", "--check")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + "run scripts/helm-values")

    def test_every_key_has_a_comment(self):
        for line in VALUES.read_text().splitlines():
            match = re.match(r"^ *([\w-]+):(?: (.*))?$", line)
            if match and match[2]:
                self.assertIn(" # ", line, "no comment")
        docs = (ROOT / "docs/kubernetes.md").read_text()
        for key in keys(yaml.safe_load(VALUES.read_text())):
            parts = key.split(".")
            shown = any(f"| `{'.'.join(parts[:n])}`" in docs for n in range(1, len(parts) + 1))
            self.assertTrue(shown or f"`{key}." in docs, f"{key} is not in docs/kubernetes.md")

    def test_values_and_schema_have_the_same_keys(self):
        values = set(keys(yaml.safe_load(VALUES.read_text())))
        known = {path for path, _ in self.all_nodes(SCHEMA)}
        free = ("labels", "runtime.", "featureFlags.", "canary.featureFlags.")
        self.assertEqual({key for key in values - known if not re.search(r"\blabels\.", key)}, set())
        optional = {"global", "resources.override.requests", "resources.override.limits",
                    "model.download.tokenSecret.name", "model.download.tokenSecret.key"}
        missing = {path for path in known - values - optional
                   if not path.startswith(free) and not path.endswith("initialDelaySeconds")}
        self.assertEqual(missing, set(), "in the schema, not in values.yaml")

    def all_nodes(self, schema, path=""):
        for name, node in schema.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield here, node
            yield from self.all_nodes(node, here)

    def test_the_schema_is_strict(self):
        jsonschema.Draft7Validator.check_schema(SCHEMA)
        for path, node in objects(SCHEMA):
            if not any(part in FREE for part in path.split(".")):
                self.assertIs(node.get("additionalProperties"), False, f"{path or 'the top'} takes unknown keys")

    def test_every_key_is_read_by_a_template(self):
        templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
        # $v, with blocks and dicts stand for parts of .Values: a key counts as read by its path's last two words.
        for path, node in self.all_nodes(SCHEMA):
            if "properties" in node or path.split(".")[0] in ("runtime", "global", "featureFlags", "probes"):
                continue
            name = path.rsplit(".", 1)[-1]
            if name in ("requests", "limits", "name", "key") or "featureFlags" in path:
                continue
            self.assertRegex(templates, rf"\.{name}\b", f"{path}: no template reads it")

    def test_shipped_values_and_cases_fit_the_schema(self):
        base = yaml.safe_load(VALUES.read_text())
        for path in (None, *chart.matrix(), ROOT / "tests/helm/behaviour-values.yaml"):
            over = yaml.safe_load(path.read_text()) if path else {}
            jsonschema.Draft7Validator(SCHEMA).validate(merged(base, over))


def merged(base, over):
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def expressions():
    """(where, PromQL) of rules, dashboard, analysis and scalers."""
    for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((CHART / "dashboards/sluice.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.search(r"label_values\((.*),", variable["query"])[1]
    for golden in ("argo-values", "full-values"):
        for each in chart.documents((chart.GOLDEN / f"{golden}.golden").read_text()):
            if each["kind"] == "AnalysisTemplate":
                for metric in each["spec"]["metrics"]:
                    yield metric["name"], metric["provider"]["prometheus"]["query"]
            if each["kind"] == "ScaledObject":
                for trigger in each["spec"]["triggers"]:
                    yield "ScaledObject", trigger["metadata"]["query"]
            if each["kind"] == "HorizontalPodAutoscaler":
                for metric in each["spec"]["metrics"]:
                    yield "HorizontalPodAutoscaler", metric["pods"]["metric"]["name"]


def metrics_in(expression):
    """(metric, labels that its matchers name)"""
    for name, matchers in re.findall(r"\b((?:sluice_|vllm:)[\w:]+)(?:\{([^}]*(?:\{\{[^}]*\}\}[^}]*)*)\})?", expression):
        if name not in TARGET_LABELS:
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', matchers)))


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with server.Server(BIN) as running:
            running.generate("hello")
            running.fail("no-such-model")
            started = running.ctl("rollout", "start", "ttft_pipeline", "--reason", "test")
            assert started.returncode == 0, started.stderr
            cls.have = {}
            for name, labels in re.findall(r"(?m)^([\w:]+)(?:\{(.*)\})? ", running.scrape()):
                cls.have.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))

    def test_every_metric_and_label_exists_in_the_real_server(self):
        seen = 0
        for where, expression in expressions():
            for name, labels in metrics_in(expression):
                seen += 1
                self.assertIn(name, self.have, where)
                self.assertLessEqual(labels - TARGET_LABELS, self.have[name], f"{where}: labels of {name}")
        self.assertGreater(seen, 60)

    def test_the_check_sees_unknown_names(self):
        self.assertEqual(list(metrics_in('rate(sluice_nope_total{fault="server",x=~"a{2}"}[5m]) / vllm:y')),
                         [("sluice_nope_total", {"fault", "x"}), ("vllm:y", set())])


class Accepted(unittest.TestCase):
    """The real programs take what the chart renders."""

    def check(self, maps):
        options = {"runtime": "--config", "flags": "--flags", "policies": "--qos", "rollouts": "--rollouts"}
        with tempfile.TemporaryDirectory() as name:
            words = ["--check"]
            for volume, option in options.items():
                for file, text in maps[f"sluice-{volume}"].items():
                    (pathlib.Path(name) / file).write_text(text)
                    words += [option, pathlib.Path(name) / file]
            return chart.run(BIN / "sluice-server", *words)

    def test_config_maps_of_every_case(self):
        for golden in sorted(chart.GOLDEN.glob("*.golden")):
            objects = chart.documents(golden.read_text())
            maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
            done = self.check(maps)
            self.assertEqual((done.returncode, done.stdout), (0, "configuration ok\n"), golden.name + done.stderr)
            for name, key, command in (("sluice-flags", "feature-flags.yaml", "flags"),
                                       ("sluice-flags-canary", "feature-flags.yaml", "flags"),
                                       ("sluice-policies", "qos-policies.yaml", "qos")):
                if name in maps:
                    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                        file.write(maps[name][key])
                        file.flush()
                        done = chart.run(BIN / "sluicectl", command, "validate", file.name)
                        self.assertEqual(done.returncode, 0, f"{golden.name} {name}: {done.stderr}")

    def test_options_are_known(self):
        known = set(re.findall(r"--[\w-]+", chart.run(BIN / "sluice-server", "--help").stdout))
        used = set()
        for golden in chart.GOLDEN.glob("*.golden"):
            for each in chart.documents(golden.read_text()):
                if each["kind"] in ("Deployment", "Rollout"):
                    used |= {word.split("=")[0] for word in chart.pod_of(each)["containers"][0]["args"]}
        self.assertEqual(used - known, set())


class Alerts(unittest.TestCase):
    def test_rules_are_right_and_fire_when_they_should(self):
        for words in (("check", "rules", CHART / "files/alerts.yaml"),
                      ("test", "rules", ROOT / "tests/helm/alerts.yaml")):
            done = chart.run(chart.PROMTOOL, *words, env=chart.DEBIAN_ENV)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_is_tested_both_ways(self):
        names = {rule["alert"] for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]
                 for rule in group["rules"]}
        fires, silent = set(), set()
        for case in yaml.safe_load((ROOT / "tests/helm/alerts.yaml").read_text())["tests"]:
            for each in case["alert_rule_test"]:
                (fires if each["exp_alerts"] else silent).add(each["alertname"])
        self.assertEqual((fires, silent), (names, names))

    def test_expressions_of_the_dashboard_parse(self):
        rules = [{"record": f"check:{n}", "expr": expression.replace("$__rate_interval", "5m")}
                 for n, (_, expression) in enumerate(expressions()) if "label_values" not in expression]
        done = chart.run(chart.PROMTOOL, "check", "rules", "/dev/stdin", env=chart.DEBIAN_ENV,
                         input=yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Dashboard(unittest.TestCase):
    def test_panels_have_titles_units_and_places_of_their_own(self):
        panels = json.loads((CHART / "dashboards/sluice.json").read_text())["panels"]
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            if panel["type"] != "row":
                self.assertTrue(panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"])
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))


if __name__ == "__main__":
    unittest.main()
