#!/usr/bin/env python3
"""Checks that config/schemas/feature-flags.schema.json says about the samples what the loader says.

usage: schema_test.py ROOT      (exit code 77: the Python packages jsonschema and yaml are not there)

flag_samples/good must pass, flag_samples/bad must fail, flag_samples/bad_beyond_schema must pass: only the loader can
refuse those. tests/config/flag_samples_test.cc asks the loader the same.
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


def main():
    root = pathlib.Path(sys.argv[1])
    schema = json.loads((root / "config/schemas/feature-flags.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    samples = root / "tests/config/flag_samples"
    cases = [(root / "config/feature-flags.yaml", True)]
    for folder, fit in (("good", True), ("bad", False), ("bad_beyond_schema", True)):
        files = sorted((samples / folder).glob("*.yaml"))
        assert files, f"no samples in {folder}"
        cases += [(file, fit) for file in files]
    wrong = 0
    for file, fit in cases:
        errors = [error.message for error in validator.iter_errors(yaml.load(file.read_text(), Loader))]
        if fit != (not errors):
            wrong += 1
            print(f"{file}: {errors[:3] if fit else 'passes, but must not'}")
    print(f"{len(cases)} files, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
