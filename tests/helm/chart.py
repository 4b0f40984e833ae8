"""What the tests of the chart share: where the tools are, rendering, reading what was rendered.

SLUICE_CLIENTS is the folder that scripts/setup --clients made: python-helm/, debian/ (promtool, haproxy), and with
--helm also bin/helm, bin/kubeconform and kubernetes-schemas/.
"""
import os
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/sluice"
GOLDEN = ROOT / "tests/helm/golden"
TOOLS = pathlib.Path(os.environ["SLUICE_CLIENTS"])
HELM, KUBECONFORM = TOOLS / "bin/helm", TOOLS / "bin/kubeconform"
SCHEMAS = TOOLS / "kubernetes-schemas"
DEBIAN_ENV = {**os.environ, "LD_LIBRARY_PATH": str(TOOLS / "debian/usr/lib/x86_64-linux-gnu")}
PROMTOOL, HAPROXY = TOOLS / "debian/usr/bin/promtool", TOOLS / "debian/usr/sbin/haproxy"


def need(*tools):
    """Ends the test as skipped (77) when a tool that Go builds is not there, or as failed when all of them must be."""
    missing = [str(tool.relative_to(TOOLS)) for tool in tools if not tool.exists()]
    if missing:
        required = os.environ.get("SLUICE_HELM_REQUIRED")
        print(f"{'FAILED' if required else 'skipped'}: {', '.join(missing)} missing; scripts/setup --helm makes them")
        sys.exit(1 if required else 77)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False,
                          **options)


def template(*values, sets=(), path=CHART):
    """`helm template`, as a finished process."""
    words = [word for path in values for word in ("-f", path)]
    words += [word for each in sets for word in ("--set", each)]
    return run(HELM, "template", "sluice", path, "-n", "inference", "--kube-version", "1.34.0", *words)


def render(*values, sets=()):
    done = template(*values, sets=sets)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def named(objects, kind, name="sluice"):
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}"
    return found[0]


def pod_of(workload):
    return workload["spec"]["template"]["spec"]


def matrix():
    return sorted((CHART / "ci").glob("*-values.yaml"))
