"""sizes, banned, machine_paths, doc_links, format: what a file may contain and how long it may be."""

import os
import posixpath
import re
import shutil
import subprocess

from tree import CPP, Finding, code_only, line_of

MAX_COLUMNS, MAX_FILE_LINES, MAX_FUNCTION_LINES = 120, 500, 70
SIZED = CPP + (".py", ".proto", ".cmake", "CMakeLists.txt", ".sh", ".yaml")

_TYPE = re.compile(r"\b(?:namespace|class|struct|union|enum|extern)\b")
_CONTROL = re.compile(r"^\s*(?:if|for|while|switch|do|else|try|catch|return)\b")


def sizes(tree):
    scripts = [path for path in tree.paths if path.startswith("scripts/") and "." not in posixpath.basename(path)]
    for path in tree.with_suffix(*SIZED) + scripts:
        lines = tree.lines(path)
        for number, line in lines:
            if len(line) > MAX_COLUMNS:
                yield Finding(path, number, f"{len(line)} columns, at most {MAX_COLUMNS}")
        if len(lines) > MAX_FILE_LINES:
            yield Finding(path, len(lines), f"{len(lines)} lines in a file, at most {MAX_FILE_LINES}")
    for path in tree.with_suffix(*CPP):
        for start, length in functions(code_only(tree.text(path))):
            if length > MAX_FUNCTION_LINES:
                yield Finding(path, start, f"a function of {length} lines, at most {MAX_FUNCTION_LINES}")


def functions(code):
    """(first line, number of lines) of each function body: a brace heuristic that needs no parser."""
    code = re.sub(r"^\s*#.*(?:\\\n.*)*$", "", code, flags=re.MULTILINE)
    scopes, head_start, found = [], 0, []
    for match in re.finditer(r"[{};]", code):
        char, offset = match[0], match.start()
        if char == "{":
            head = code[head_start:offset]
            in_function = any(kind == "function" for kind, _ in scopes)
            is_function = "(" in head and not _CONTROL.match(head) and not _is_type(head)
            scopes.append(("inner" if in_function else "function" if is_function else "scope",
                           head_start + len(head) - len(head.lstrip())))
        elif char == "}" and scopes:
            kind, start = scopes.pop()
            if kind == "function":
                first = line_of(code, start)
                found.append((first, line_of(code, offset) - first + 1))
        head_start = offset + 1
    return found


def _is_type(head):
    """`class A : B<decltype(c())>` is a type, `enum E f(int)` is rare enough to be taken for one."""
    return _TYPE.search(re.sub(r"template\s*<[^{}]*?>\s*(?=class|struct)|<[^<>]*>", "", head)) is not None


# name: (pattern in code, why, path prefixes where it is fine)
BANNED = {
    "clock": (r"\b(?:system|steady|high_resolution)_clock::now\b|\babsl::Now\s*\(", "read time through Clock&",
              ("base/clock.cc", "tests/")),
    "sleep": (r"\b(?:sleep_for|sleep_until|usleep|nanosleep|SleepFor)\s*\(|(?<![\w.>])::sleep\s*\(|"
              r"(?<![\w.>:])sleep\s*\(\s*\d",
              "wait on a condition or a manual clock", ()),
    "regex": (r"\bstd::w?regex\b", "std::regex can overflow the stack on long input", ()),
    "random": (r"(?<![\w.>:])(?:std::|::)?s?rand\s*\(|\bstd::random_device\b|\bstd::random_shuffle\b",
               "take a seeded generator by constructor", ()),
    "throw": (r"\bthrow\b", "return absl::Status", ()),
    "stdout": (r"(?<![\w:])(?:std::)?(?:printf|puts|putchar)\s*\(|\bstd::cout\b",
               "libraries log, only command line tools print",
               ("services/cli/", "services/main.cc", "loadtest/", "tests/")),
}


def banned(tree):
    for path in tree.with_suffix(*CPP):
        code = code_only(tree.text(path))
        for name, (pattern, why, fine) in BANNED.items():
            for match in re.finditer(pattern, code):
                if not path.startswith(fine or ("\0",)):
                    yield Finding(path, line_of(code, match.start()), f"[{name}] {match[0].strip()}: {why}")
    for path in tree.with_suffix(*SIZED):
        for number, line in tree.lines(path):
            if re.search(r"\bFIX[M]E\b", line):
                yield Finding(path, number, "[todo] fix it now, or write TODO(#issue)")
            if re.search(r"\bTO[D]O\b(?!\(#(?:\d+|issue)\))", line):
                yield Finding(path, number, "[todo] write TODO(#issue)")


# Spelled with brackets so that this file does not find itself.
MACHINE = re.compile(
    r"(?<![\w.$}/-])/(?:wor[k]|roo[t]|tmp/prob[e]|home/[a-z]\w+)/|\bpyp[i]\.org\b|\bpythonhoste[d]\.org\b|"
    r"\bregistry\.npmj[s]\.|\bcrate[s]\.io\b|\bproxy\.golan[g]\.org\b|\bmave[n]\.(?:apache\.)?org\b|"
    r"\bde[b]\.debian\.org\b")


def machine_paths(tree):
    for path in tree.paths:
        for number, line in tree.lines(path):
            match = MACHINE.search(line)
            if match:
                yield Finding(path, number, f"{match[0]}: no path of one machine and no registry host in the tree")


def doc_links(tree):
    """Relative links in Markdown lead to files that exist, and #anchors to headings."""
    for path in tree.with_suffix(".md"):
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", lambda m: "\n" * m[0].count("\n"), tree.text(path), flags=re.M | re.S)
        for match in re.finditer(r"\]\(([^()\s]+(?:\([^()]*\))?)(?:\s+\"[^\"]*\")?\)", prose):
            target, _, anchor = match[1].partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            goal = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)) if target else path
            if goal.startswith("..") or not tree.exists(goal):
                yield Finding(path, line_of(prose, match.start()), f"dead link {match[1]}: there is no {goal}")
            elif anchor and goal.endswith(".md") and anchor not in _anchors(tree.text(goal)):
                yield Finding(path, line_of(prose, match.start()), f"dead link {match[1]}: no such heading in {goal}")


def _anchors(markdown):
    """GitHub's heading ids; a repeated heading gets -1, -2, ..."""
    seen, anchors = {}, set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", markdown))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def format(tree):
    tool = shutil.which("clang-format-14")
    if not tool:
        yield Finding(".clang-format", 1, "clang-format-14 not found: install the Debian package clang-format-14")
        return
    paths = tree.with_suffix(*CPP)
    for batch in (paths[i:i + 50] for i in range(0, len(paths), 50)):
        output = subprocess.run([tool, "--dry-run", "-Werror", "--fallback-style=Google", *batch], cwd=tree.root,
                                capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stderr
        first = {}
        for path, number in re.findall(r"^([^\s:]+):(\d+):\d+: error", output, re.M):
            first.setdefault(path, int(number))
        for path, number in first.items():
            yield Finding(path, number, "not formatted: run scripts/check --fix")


def _function(lines, name="f"):
    return f"int {name}(int a) {{\n" + "  a += 1;\n" * (lines - 2) + "}\n"


SELF_TESTS = {
    "sizes": [
        ({"base/a.cc": "//" + "x" * 118 + "\n" + _function(70)}, None),
        ({"base/a.cc": "//" + "x" * 119 + "\n"}, "base/a.cc:1: 121 columns"),
        ({"base/a.cc": "\n" * 501}, "501 lines in a file"),
        ({"base/a.cc": "namespace a {\n" + _function(71) + "}\n"}, "base/a.cc:2: a function of 71 lines"),
        ({"base/a.cc": "class A : public B {\n  A() : b_{1}, c_(2) {\n" + ";\n" * 69 + "  }\n};\n"}, "71 lines"),
        ({"base/a.cc": "TEST(A, B) {\n  auto f = [&] { if (a) { b(\"}\"); } };\n" + ";\n" * 80 + "}\n"}, "of 83 lines"),
        ({"base/a.cc": "struct A {\n" + "  int f() { return 1; }\n" * 90 + "};\n"}, None),
        ({"base/a.cc": "const int a[] = {\n" + "1,\n" * 90 + "};\n"}, None),
    ],
    "banned": [
        ({"base/clock.cc": "std::chrono::steady_clock::now();\n"}, None),
        ({"qos/a.cc": "// steady_clock::now() would throw rand()\nconst char* a = \"std::regex\";\n"}, None),
        ({"qos/a.cc": "grand(); x.rand(); rows.sleep(); operand(1);\n"}, None),
        ({"qos/a.cc": "\nauto t = std::chrono::steady_clock::now();\n"}, "qos/a.cc:2: [clock]"),
        ({"qos/a.cc": "auto t = absl::Now();\n"}, "[clock]"),
        ({"tests/qos/a.cc": "std::this_thread::sleep_for(1s);\n"}, "[sleep]"),
        ({"qos/a.cc": "  sleep(1);\n"}, "[sleep]"),
        ({"qos/a.cc": "std::regex r;\n"}, "[regex]"),
        ({"qos/a.cc": "int a = rand() % 3;\n"}, "[random]"),
        ({"qos/a.cc": "std::random_device d;\n"}, "[random]"),
        ({"qos/a.cc": "throw 1;\n"}, "[throw]"),
        ({"qos/a.cc": "std::cout << 1;\n"}, "[stdout]"),
        ({"services/cli/a.cc": "std::cout << 1;\n"}, None),
        ({"qos/a.cc": "// TO" + "DO: later\n"}, "[todo]"),
        ({"qos/a.cc": "// TO" + "DO(#12): later\n"}, None),
        ({"qos/a.cc": "// FIX" + "ME\n"}, "[todo]"),
    ],
    "machine_paths": [
        ({"README.md": "see docs/work/a.md, ${HOME}/.cache, /usr/bin and https://github.com\n"}, None),
        ({"README.md": "\ncd /wor" + "k/main\n"}, "README.md:2: /wor" + "k/"),
        ({"scripts/a": "cp x /ro" + "ot/.cache\n"}, "/ro" + "ot/"),
        ({"a.txt": "https://pyp" + "i.org/simple\n"}, "no registry host"),
    ],
    "doc_links": [
        ({"README.md": "[a](docs/a.md#some-b-heading) [b](https://x.y) `[c](gone)` [d](#top)\n# Top\n",
          "docs/a.md": "## Some `B` heading!\n[up](../README.md)\n"}, None),
        ({"README.md": "\n[a](docs/gone.md)\n"}, "README.md:2: dead link docs/gone.md"),
        ({"README.md": "[a](#gone)\n# Here\n"}, "no such heading"),
        ({"README.md": "[a](../other/a.md)\n"}, "dead link"),
    ],
    "format": [
        ({"a.cc": "int a;\n"}, None),
        ({"a.cc": "int a;\nint   b;\n"}, "a.cc:2: not formatted"),
    ],
}
