#!/usr/bin/env python3
"""Renders the chart with helm: matrix, golden files, schemas of Kubernetes, refusals, every switch.

SLUICE_UPDATE_GOLDEN=1 writes the golden files anew: look at the difference before you commit it.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile
import unittest

import chart
from chart import CHART, GOLDEN, documents, matrix, named, pod_of, render, template

chart.need(chart.HELM)
sys.argv[1:2] = []  # where the binaries are: for the other parts

ROUTE = ("route.kind=GRPCRoute", "route.parentRefs[0].name=g", "route.gatewayFrom[0].podSelector.matchLabels.a=b")
OUTSIDE = ("auth.apiKeysSecret=keys", "tls.secret=tls", "tls.serverName=x")
# sets, what stderr must say: the key and the allowed form
REFUSED = [
    (["canary.weight=101"], ["/canary/weight", "maximum: got 101, want 100"]),
    (["canary.weight=-1"], ["/canary/weight", "minimum: got -1, want 0"]),
    (["featureFlags.ttft_pipeline.rollout_percentage=150"], ["/ttft_pipeline/rollout_percentage", "want 100"]),
    (["featureFlags.my_flag.rollout_percentage=ten"], ["/my_flag/rollout_percentage", "want number"]),
    (["canary.featureFlags.phase5.enabled=maybe"], ["/phase5/enabled", "want boolean"]),
    (["featureFlags.emergency.kil_switch=true"], ["kil_switch", "not allowed"]),
    (["imagee.tag=x"], ["imagee", "not allowed"]),
    (["runtime.engine.slotz=4"], ["/runtime/engine", "slotz", "not allowed"]),
    (["runtime.engine.slots=0"], ["/runtime/engine/slots", "minimum: got 0, want 1"]),
    (["runtime.server.grpc_address=0.0.0.0:1"], ["grpc_address", "not allowed"]),
    (["network.grpcPort=80"], ["/network/grpcPort", "want 1,024"]),
    (["network.grpcPort=grpc"], ["/network/grpcPort", "want integer"]),
    (["network.metricsPort=8001"], ["network.metricsPort: 8001", "allowed: another port"]),
    (["workload.kind=StatefulSet"], ["/workload/kind", "'Deployment', 'Rollout'"]),
    (["workload.replicas=two"], ["/workload/replicas", "want integer"]),
    (["workload.maxSurge=0"], ["workload.maxSurge", "never begin", "allowed: one of them above 0"]),
    (["model.source=hub"], ["/model/source", "'bundled', 'pvc', 'download'"]),
    (["model.source=pvc"], ["model.claim: is empty", "allowed: the name of a PersistentVolumeClaim"]),
    (["model.source=download"], ["model.download", "allowed: https://... and 64 hex digits"]),
    (["model.download.url=http://x"], ["/model/download/url", "does not match pattern"]),
    (["model.download.sha256=abc"], ["/model/download/sha256", "does not match pattern"]),
    (["image.digest=sha256:1"], ["/image/digest", "does not match pattern"]),
    (["shutdown.terminationGracePeriodSeconds=64"],
     ["shutdown.terminationGracePeriodSeconds: 64 s is too short", "10 + drainSeconds 45 + marginSeconds 10 = 65",
      "allowed: at least 65"]),
    (["shutdown.marginSeconds=1"], ["/shutdown/marginSeconds", "minimum: got 1, want 5"]),
    (["shutdown.drainDelaySeconds=46"], ["shutdown.drainDelaySeconds: 46", "allowed: 0 to 45"]),
    (["hpa.enabled=true", "keda.enabled=true", "keda.prometheusAddress=http://p"],
     ["hpa.enabled, keda.enabled", "undo each other", "allowed: one of them"]),
    (["hpa.enabled=true", "hpa.minReplicas=11"], ["hpa.minReplicas: 11", "allowed: at most 10"]),
    (["keda.enabled=true"], ["keda.prometheusAddress: is empty", "allowed: http"]),
    (["keda.enabled=true", "keda.prometheusAddress=http://p", "keda.maxReplicas=1"], ["keda.minReplicas: 2"]),
    (["hpa.metrics[0].name=vllm:x", "hpa.metrics[0].averageValue=1"], ["/hpa/metrics/0/name", "does not match"]),
    (["pdb.minAvailable=1"], ["pdb.maxUnavailable, pdb.minAvailable", "takes one of them"]),
    (["pdb.maxUnavailable="], ["both are empty", "allowed: one of them"]),
    (["canary.enabled=true", "canary.image.tag=v2"], ["canary.enabled: without a route", "allowed: route.kind"]),
    (["canary.enabled=true", *ROUTE, "route.internal=true"], ["canary.image", "allowed: one of them"]),
    (["canary.enabled=true", "canary.image.tag=v2", "workload.kind=Rollout"],
     ["canary.enabled: Argo", "allowed: false"]),
    (["route.kind=GRPCRoute"], ["route.parentRefs: is empty", "allowed: a list"]),
    (["route.kind=GRPCRoute", "route.parentRefs[0].name=g"], ["route.gatewayFrom: is empty", "allowed: a list"]),
    (["route.kind=TCPRoute"], ["/route/kind", "'none', 'GRPCRoute', 'HTTPRoute', 'both'"]),
    ([*ROUTE], ["auth.apiKeysSecret: is empty", "route.kind GRPCRoute", "allowed: a Secret with api_keys.yaml"]),
    ([*ROUTE, "auth.apiKeysSecret=k"], ["tls.secret: is empty", "route.gatewayTerminatesTls true"]),
    (["service.type=LoadBalancer"], ["auth.apiKeysSecret: is empty", "service.type LoadBalancer"]),
    (["service.type=NodePort", "auth.apiKeysSecret=k"], ["tls.secret: is empty", "in the clear"]),
    (["service.type=ExternalName"], ["/service/type", "'ClusterIP', 'LoadBalancer', 'NodePort'"]),
    (["tls.secret=t"], ["tls.serverName: is empty", "allowed: a name that is in it"]),
    (["tls.clientCaSecret=c", "tls.probeSecret=p"], ["mTLS needs a server certificate", "allowed: with tls.secret"]),
    ([*OUTSIDE, "tls.clientCaSecret=c"], ["tls.probeSecret, tls.clientCaSecret", "allowed: both or none"]),
    (["analysis.enabled=true", "analysis.prometheusAddress=http://p"], ["no canary to judge", "allowed: false"]),
    (["analysis.enabled=true"], ["analysis.prometheusAddress: is empty", "allowed: http"]),
    (["analysis.maxErrorRatio=2"], ["/analysis/maxErrorRatio", "want 1"]),
    (["analysis.interval=60"], ["/analysis/interval", "want string"]),
    (["state.store=redis"], ["/state/store", "'none', 'file', 'etcd'"]),
    (["state.store=etcd"], ["state.etcd.endpoints: is empty", "allowed: a list of https://HOST:PORT"]),
    (["state.store=etcd", "state.etcd.endpoints[0]=e:1"], ["/state/etcd/endpoints/0", "does not match"]),
    (["state.store=etcd", "state.etcd.endpoints[0]=http://e:1", "state.etcd.tlsSecret=t"],
     ["state.etcd.tlsSecret: the endpoints are http", "allowed: with https://HOST:PORT"]),
    (["rollouts.window_ms=1000"], ["rollouts: a rollout keeps its state", "allowed: state.store file or etcd"]),
    (["state.etcd.username=u"], ["state.etcd.username, state.etcd.passwordSecret", "allowed: both or none"]),
    (["podMonitor.enabled=true", "serviceMonitor.enabled=true"], ["counted twice", "allowed: one of them"]),
    (["serviceMonitor.enabled=true", "service.headless=false"],
     ["serviceMonitor.enabled", "allowed: service.headless"]),
    (["inferencePool.enabled=true"], ["inferencePool.endpointPicker.name: is empty", "allowed: the name"]),
    (["securityContext.runAsUser=0"], ["/securityContext/runAsUser", "minimum: got 0, want 1"]),
    (["resources.preset=huge"], ["/resources/preset", "'small', 'medium', 'large', 'none'"]),
]


class Lint(unittest.TestCase):
    def test_lint_is_strict_about_each_case(self):
        for values in matrix():
            done = chart.run(chart.HELM, "lint", "--strict", CHART, "-f", values)
            self.assertEqual(done.returncode, 0, f"{values.name}: {done.stdout}{done.stderr}")


class Golden(unittest.TestCase):
    maxDiff = 4000

    def test_rendered_is_what_was_reviewed(self):
        cases = matrix() + [chart.ROOT / "tests/helm/behaviour-values.yaml"]
        for values in cases:
            text, path = render(values), GOLDEN / f"{values.stem}.golden"
            if os.environ.get("SLUICE_UPDATE_GOLDEN"):
                path.write_text(text)
            self.assertEqual(text, path.read_text(), f"{path.name}; SLUICE_UPDATE_GOLDEN=1 writes it anew")
        self.assertEqual({path.stem for path in GOLDEN.glob("*.golden")}, {values.stem for values in cases})


class Schemas(unittest.TestCase):
    def conform(self, text):
        chart.need(chart.KUBECONFORM, chart.SCHEMAS)
        return chart.run(chart.KUBECONFORM, "-strict", "-output", "json", "-summary", "-schema-location",
                         f"{chart.SCHEMAS}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", input=text)

    def test_every_object_is_valid(self):
        kinds = set()
        for values in matrix():
            text = render(values)
            done = self.conform(text)
            self.assertEqual(done.returncode, 0, f"{values.name}: {done.stdout}")
            summary = json.loads(done.stdout)["summary"]
            self.assertEqual(summary["valid"], len(documents(text)))
            kinds |= {each["kind"] for each in documents(text)}
        for kind in ("Deployment", "Rollout", "AnalysisTemplate", "GRPCRoute", "HTTPRoute", "PodMonitor",
                     "ServiceMonitor", "PrometheusRule", "ScaledObject", "HorizontalPodAutoscaler", "InferencePool",
                     "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount", "Service", "ConfigMap", "Pod"):
            self.assertIn(kind, kinds, "no case of ci/ renders it")

    def test_the_check_sees_mistakes(self):
        for values, right, wrong in (("full", "readinessProbe:", "readinessProbee:"),
                                     ("full", "parentRefs:", "parents:"),
                                     ("full", "podMetricsEndpoints:", "endpoints:"),
                                     ("argo", "successCondition:", "successConditions:"),
                                     ("argo", "maxReplicaCount:", "maxReplicas:"),
                                     ("argo", "stableService:", "stable:")):
            text = render(CHART / f"ci/{values}-values.yaml")
            self.assertIn(right, text)
            done = self.conform(text.replace(right, wrong))
            self.assertNotEqual(done.returncode, 0, wrong)


class Refused(unittest.TestCase):
    def test_wrong_and_contradictory_values_say_key_and_allowed_form(self):
        for sets, words in REFUSED:
            with self.subTest(sets=sets):
                done = template(sets=sets)
                self.assertNotEqual(done.returncode, 0, "was rendered")
                for word in words:
                    self.assertIn(word, done.stderr)

    def test_every_fail_of_the_chart_is_reached(self):
        said = "".join(template(sets=sets).stderr for sets, _ in REFUSED)
        for line in (CHART / "templates/_checks.tpl").read_text().splitlines():
            if "fail " in line:
                words = line.split('"')[1].split("%")[0].rstrip("\\")
                self.assertIn(words, said)


class Switches(unittest.TestCase):
    """No switch without a template behind it."""

    def test_every_boolean_and_choice_changes_what_is_rendered(self):
        full, plain = CHART / "ci/full-values.yaml", CHART / "ci/default-values.yaml"
        needs = {"hpa.enabled": (), "keda.enabled": ("keda.prometheusAddress=http://p",),
                 "canary.enabled": (*ROUTE, "route.internal=true", "canary.image.tag=v2"),
                 "analysis.enabled": ("workload.kind=Rollout", "analysis.prometheusAddress=http://p"),
                 "inferencePool.enabled": ("inferencePool.endpointPicker.name=p",),
                 "route.internal": None, "route.gatewayTerminatesTls": None}  # checked by Refused
        schema = json.loads((CHART / "values.schema.json").read_text())
        for path, node in leaves(schema):
            if node.get("type") != "boolean" or path.startswith(("runtime.", "featureFlags.", "canary.featureFlags.")):
                continue
            extra = needs.get(path, ())
            if extra is None:
                continue
            base = full if path.startswith("analysis.useVerdict") else plain
            outcomes = {render(base, sets=[*extra, f"{path}={value}"]) for value in ("true", "false")}
            self.assertEqual(len(outcomes), 2, f"{path} changes nothing")


def leaves(schema, prefix=""):
    for name, node in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        if "properties" in node:
            yield from leaves(node, path + ".")
        else:
            yield path, node


def notes(sets):
    """NOTES.txt as helm would show it: without a cluster helm renders only objects, so it is put into one."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "sluice"
        shutil.copytree(CHART, copy)
        text = (copy / "templates/NOTES.txt").read_text()
        (copy / "templates/notes.yaml").write_text(
            '{{ define "notes" }}' + text + '{{ end }}\nkind: Notes\ntext: {{ include "notes" . | quote }}\n')
        done = template(sets=sets, path=copy)
        assert done.returncode == 0, done.stderr
        return next(each["text"] for each in documents(done.stdout) if each["kind"] == "Notes")


class Meaning(unittest.TestCase):
    def test_grace_is_the_sum_and_the_server_drains_within(self):
        objects = documents(render(sets=["shutdown.preStopSeconds=7", "shutdown.drainSeconds=31"]))
        self.assertEqual(pod_of(named(objects, "Deployment"))["terminationGracePeriodSeconds"], 7 + 31 + 10)
        text = named(objects, "ConfigMap", "sluice-runtime")["data"]["runtime.yaml"]
        self.assertIn("drain_grace_ms: 31000", text)
        given = render(sets=["shutdown.terminationGracePeriodSeconds=65"])
        self.assertEqual(pod_of(named(documents(given), "Deployment"))["terminationGracePeriodSeconds"], 65)

    def test_replicas_are_left_to_the_scaler(self):
        for sets in (["hpa.enabled=true"], ["keda.enabled=true", "keda.prometheusAddress=http://p"]):
            self.assertNotIn("replicas", named(documents(render(sets=sets)), "Deployment")["spec"])
        argo = documents(render(CHART / "ci/argo-values.yaml"))
        self.assertEqual(named(argo, "ScaledObject")["spec"]["scaleTargetRef"]["kind"], "Rollout")

    def test_canary_weights_sum_to_a_hundred_and_name_services_that_select_pods(self):
        for weight in (0, 1, 50, 100):
            objects = documents(render(CHART / "ci/full-values.yaml", sets=[f"canary.weight={weight}"]))
            for kind, name in (("GRPCRoute", "sluice"), ("HTTPRoute", "sluice-http")):
                refs = named(objects, kind, name)["spec"]["rules"][0]["backendRefs"]
                self.assertEqual({ref["name"]: ref["weight"] for ref in refs},
                                 {"sluice": 100 - weight, "sluice-canary": weight})
                for ref in refs:
                    wanted = named(objects, "Service", ref["name"])["spec"]["selector"]
                    labels = named(objects, "Deployment", ref["name"])["spec"]["template"]["metadata"]["labels"]
                    self.assertLessEqual(wanted.items(), labels.items())

    def test_objects_refer_to_what_exists(self):
        for values in matrix():
            objects = documents(render(values))
            maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
            for each in objects:
                if each["kind"] in ("Deployment", "Rollout"):
                    pod, container = pod_of(each), pod_of(each)["containers"][0]
                    self.assertLessEqual({v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}, maps)
                    self.assertLessEqual({m["name"] for m in container["volumeMounts"]},
                                         {v["name"] for v in pod["volumes"]})
                    self.assertFalse(any("subPath" in mount for mount in container["volumeMounts"]))

    def test_pods_run_with_no_more_rights_than_needed(self):
        for values in matrix():
            for each in documents(render(values)):
                if each["kind"] not in ("Deployment", "Rollout"):
                    continue
                pod = pod_of(each)
                self.assertFalse(pod["automountServiceAccountToken"])
                own = [c for c in pod["containers"] + pod.get("initContainers", []) if c["name"] in ("sluice", "model")]
                for security in [container["securityContext"] for container in own]:
                    self.assertTrue(security["readOnlyRootFilesystem"] and security["runAsNonRoot"])
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})

    def test_a_changed_flag_restarts_nothing_and_a_changed_runtime_does(self):
        def pod_template(sets):
            return named(documents(render(sets=sets)), "Deployment")["spec"]["template"]
        self.assertEqual(pod_template([]), pod_template(["featureFlags.phase5.rollout_percentage=1"]))
        self.assertNotEqual(pod_template([]), pod_template(["runtime.engine.slots=7"]))

    def test_inside_the_cluster_unless_told_otherwise(self):
        objects = documents(render())
        self.assertEqual({each["spec"]["type"] for each in objects if each["kind"] == "Service" and
                          "type" in each["spec"]}, {"ClusterIP"})
        self.assertFalse([each for each in objects if "Route" in each["kind"] or each["kind"] == "Ingress"])

    def test_notes_tell_what_stands_in_front(self):
        for sets, words in (([], "Nobody is asked who they are"),
                            (["service.type=LoadBalancer", *OUTSIDE], "OUTSIDE: the LoadBalancer"),
                            ([*ROUTE, "route.gatewayTerminatesTls=true", "auth.apiKeysSecret=k"], "It terminates TLS"),
                            (["shutdown.drainSeconds=20"], "WARNING: drainSeconds is shorter")):
            self.assertIn(words, notes(sets))

    def test_it_packs(self):
        with tempfile.TemporaryDirectory() as folder:
            done = chart.run(chart.HELM, "package", CHART, "-d", folder)
            self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
