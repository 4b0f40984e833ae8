"""The files that a check looks at, and what checks share: findings, the allow-list, C++ without comments."""

import dataclasses
import fnmatch
import pathlib
import re
import subprocess

CPP = (".h", ".cc")


@dataclasses.dataclass(frozen=True)
class Finding:
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message}"


class Tree:
    """A source tree; in a git checkout the tracked files and those about to be, else every file."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.paths = sorted(path for path in self._list() if (self.root / path).is_file())
        self._text = {}

    def _list(self):
        if (self.root / ".git").exists():
            command = ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")) - {""}
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def exists(self, path):
        return (self.root / path).exists()

    def text(self, path):
        if path not in self._text:
            self._text[path] = (self.root / path).read_text(encoding="utf-8", errors="replace")
        return self._text[path]

    def lines(self, path):
        return list(enumerate(self.text(path).splitlines(), 1))

    def with_suffix(self, *suffixes):
        return [path for path in self.paths if path.endswith(suffixes)]

    def includes(self, path):
        """(line number, included path) of each #include."""
        found = ((number, re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)) for number, line in self.lines(path))
        return [(number, match[1]) for number, match in found if match]


_TOKENS = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def code_only(text):
    """C++ with comments removed and literals emptied; line numbers stay."""

    def blank(match):
        token = match[0]
        return ("" if token.startswith("/") else '""') + "\n" * token.count("\n")

    return _TOKENS.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


class AllowList:
    """allow.txt: `check  path-pattern  # reason` per line. A line without a reason or without effect is a finding."""

    def __init__(self, tree, path="tests/tidy/allow.txt"):
        self.path, self.entries, self.used, self.malformed = path, [], set(), []
        for number, line in tree.lines(path) if tree.exists(path) else []:
            if not line.strip() or line.startswith("#"):
                continue
            entry, _, reason = line.partition("#")
            words = entry.split()
            if len(words) == 2 and reason.strip():
                self.entries.append((number, *words))
            else:
                self.malformed.append(Finding(path, number, "expected: check path-pattern # reason"))

    def allows(self, check, path):
        """True when an entry covers it. Every such entry counts as used."""
        hits = {number for number, name, glob in self.entries if name == check and fnmatch.fnmatch(path, glob)}
        self.used |= hits
        return bool(hits)

    def unused(self, checks):
        return [Finding(self.path, number, f"unused entry: {name} {glob}")
                for number, name, glob in self.entries if number not in self.used and name.split(".")[0] in checks]
