#!/usr/bin/env python3
"""Checks that the schemas in config/schemas say about the samples what the loaders say.

usage: schema_test.py ROOT      (exit code 77: the Python packages jsonschema and yaml are not there)

Of flag_samples, qos_samples and rollout_samples good must pass, bad must fail, bad_beyond_schema must pass: only the
loader can refuse those. flag_samples_test.cc, qos_file_test.cc and rollout_file_test.cc ask the loaders the same.
"""
import json
import pathlib
import sys

try:
    import jsonschema
    import yaml
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


class Loader(yaml.SafeLoader):
    """Times stay text, as in our reader."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}


def check(root, schema_name, shipped, samples):
    schema = json.loads((root / "config/schemas" / schema_name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    cases = [(root / "config" / shipped, True)]
    for folder, fit in (("good", True), ("bad", False), ("bad_beyond_schema", True)):
        files = sorted((root / "tests/config" / samples / folder).glob("*.yaml"))
        assert files, f"no samples in {samples}/{folder}"
        cases += [(file, fit) for file in files]
    wrong = 0
    for file, fit in cases:
        errors = [error.message for error in validator.iter_errors(yaml.load(file.read_text(), Loader))]
        if fit != (not errors):
            wrong += 1
            print(f"{file}: {errors[:3] if fit else 'passes, but must not'}")
    print(f"{schema_name}: {len(cases)} files, {wrong} wrong")
    return wrong


def main():
    root = pathlib.Path(sys.argv[1])
    wrong = check(root, "feature-flags.schema.json", "feature-flags.yaml", "flag_samples")
    wrong += check(root, "qos-policies.schema.json", "qos-policies.yaml", "qos_samples")
    wrong += check(root, "rollouts.schema.json", "rollouts.yaml", "rollout_samples")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
