#!/usr/bin/env python3
"""Checks the source tree against the house rules.

usage: tidy.py [--self-test] [--root FOLDER] [CHECK ...]      (default: every check, on this checkout)

Exceptions stand in tests/tidy/allow.txt, each with a reason. --self-test feeds every check trees that break its rule
and expects it to say so.
"""

import argparse
import pathlib
import sys
import tempfile

import structure
import text_checks
from tree import AllowList, Tree

CHECKS = {name: (getattr(module, name), cases)
          for module in (structure, text_checks) for name, cases in module.SELF_TESTS.items()}


def run(names, root):
    """Every finding that the allow-list does not cover, and what is wrong with the list itself."""
    tree = Tree(root)
    allowed = AllowList(tree)
    findings = list(allowed.malformed)
    for name in names:
        findings += [f for f in CHECKS[name][0](tree) if not allowed.allows(_rule(name, f), f.path)]
    return findings + allowed.unused(names)


def _rule(check, finding):
    """`banned.sleep` for a finding that begins with [sleep], else the check's name."""
    return f"{check}.{finding.message[1:].split(']')[0]}" if finding.message.startswith("[") else check


def self_test(name):
    failures = []
    allow_cases = [
        ({"base/a.cc": "throw 1;\n", "tests/tidy/allow.txt": "banned.throw base/* # because\n"}, "banned", None),
        ({"base/a.cc": "throw 1;\n", "tests/tidy/allow.txt": "banned.throw base/*\n"}, "banned", "# reason"),
        ({"base/a.cc": "throw 1;\n", "tests/tidy/allow.txt": "banned.sleep base/* # x\n"}, "banned", "unused entry"),
    ]
    cases = [(files, name, expected) for files, expected in CHECKS[name][1]]
    for files, check, expected in cases + [case for case in allow_cases if case[1] == name]:
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                (pathlib.Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
                (pathlib.Path(root) / path).write_text(text)
            found = [str(finding) for finding in run([check], root)]
        if expected is None and found or expected is not None and not any(expected in f for f in found):
            failures.append(f"{name}: expected {expected or 'nothing'}, found {found} in {list(files.items())}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("check", nargs="*", help=", ".join(CHECKS))
    options = parser.parse_args()
    names = options.check or list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        parser.error(f"unknown check {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    if options.self_test:
        findings = [failure for name in names for failure in self_test(name)]
    else:
        findings = run(names, options.root)
    for finding in findings:
        print(finding)
    print(f"{', '.join(names)}: {len(findings)} {'failures' if options.self_test else 'findings'}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
