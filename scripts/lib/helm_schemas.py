#!/usr/bin/env python3
"""Makes the folder of JSON Schemas that kubeconform reads without a network.

usage: helm_schemas.py GO MODULES KUBERNETES_VALIDATE_FOLDER OUT     (PYTHONPATH needs yaml)

Kubernetes' own kinds come from the package kubernetes-validate (strict), with references put in place since kubeconform
cannot follow them; custom kinds from the definitions in the modules of MODULES, each with its pinned checksum.
"""
import json
import pathlib
import subprocess
import sys

import yaml

KUBERNETES = "v1.34.0-local-strict"
KINDS = ("configmap-v1 deployment-apps-v1 service-v1 serviceaccount-v1 pod-v1 horizontalpodautoscaler-autoscaling-v2 "
         "poddisruptionbudget-policy-v1 networkpolicy-networking-v1").split()

yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)  # a bare = in enumerations


def in_place(node, definitions, seen=()):
    if isinstance(node, list):
        return [in_place(item, definitions, seen) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if reference:
        name = reference.rsplit("/", 1)[1]
        return {} if name in seen else in_place(definitions[name], definitions, (*seen, name))
    return {key: in_place(value, definitions, seen) for key, value in node.items() if key not in ("$id", "$schema")}


def strict(node):
    """An object with named properties takes no others, unless its definition says so."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: strict(value) for key, value in node.items()}
    if (isinstance(out.get("properties"), dict) and out.get("type") == "object" and "additionalProperties" not in out
            and not out.get("x-kubernetes-preserve-unknown-fields")):
        out["additionalProperties"] = False
    if out.pop("x-kubernetes-int-or-string", None):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return out


def builtin(folder, out):
    source = next(folder.glob(f"**/kubernetes-json-schema/{KUBERNETES}"))
    definitions = json.loads((source / "_definitions.json").read_text())
    definitions = definitions.get("$defs", definitions.get("definitions"))
    for kind in KINDS:
        schema = in_place(json.loads((source / f"{kind}.json").read_text()), definitions)
        (out / f"{kind}.json").write_text(json.dumps(schema))


def custom(go, modules, out):
    for line in modules.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        module, version, checksum, folder = line.split()
        got = json.loads(subprocess.run([go, "mod", "download", "-json", f"{module}@{version}"], check=True,
                                        capture_output=True, text=True, cwd=out).stdout)
        if got["Sum"] != checksum:
            sys.exit(f"{module} {version}: checksum {got['Sum']}, pinned is {checksum}")
        for path in sorted((pathlib.Path(got["Dir"]) / folder).glob("*.yaml")):
            for crd in yaml.safe_load_all(path.read_text()):
                if not crd or crd.get("kind") != "CustomResourceDefinition":
                    continue
                spec = crd["spec"]
                for each in spec["versions"]:
                    schema = strict(each["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    name = f"{spec['names']['kind'].lower()}-{spec['group'].split('.')[0]}-{each['name']}.json"
                    (out / name).write_text(json.dumps(schema))


def main():
    go, modules, package, out = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    out.mkdir(parents=True, exist_ok=True)
    builtin(package, out)
    custom(go, modules, out)


if __name__ == "__main__":
    main()
