"""layering, walls, build_lists: which folder may include what, and that every file belongs to the build."""

import posixpath
import re

from tree import CPP, Finding

# Includes flow from a higher number to a lower one, or stay inside the folder. See docs/architecture.md.
RANKS = {
    "loadtest/components": 120, "loadtest": 110,
    "services": 100, "config": 90, "rollout": 85, "flags": 80, "qos": 80, "engine/pipelines": 80, "engine/models": 70,
    "engine/scheduler": 60, "engine/cache": 50, "engine/sampling": 50, "engine/llama": 50, "engine/native": 50,
    "engine/backend": 40, "rollout/analysis": 30, "state": 30, "state/etcd": 35, "base": 0,
}
# Narrower than the ranks: these use nothing but what is named.
ONLY = {"flags": {"state", "base"}, "qos": {"state", "base"}, "rollout": {"rollout/analysis", "state", "base"},
        "rollout/analysis": {"base"}, "state/etcd": {"state", "base", "protos"},
        "loadtest": {"protos", "base", "config", "rollout/analysis"}}

# Headers of a vendor → the folders that may include them.
WALLS = [
    (r"grpc(pp|\+\+)?/|google/|.*\.pb\.h$", ("services", "loadtest", "state/etcd", "tests")),
    (r"yaml-cpp/", ("config", "tests/config")),
    (r"(llama|ggml|gguf)[^/]*\.h$|(chat|common)\.h$|llama-common/|jinja/", ("engine/llama", "tests/engine/llama")),
    (r"curl/", ("base/curl", "loadtest", "tests/loadtest")),
    (r"base/curl/", ("base/curl", "loadtest", "services/clients", "tests")),
    (r"spdlog/(?!fmt/)", ("base", "tests/base")),
    (r"benchmark/", ("loadtest/components",)),
    (r"prometheus/", ("services/telemetry", "tests/services")),
]


def folder_of(path):
    """The folder of RANKS (or `tests`, `loadtest`, ...) that a file or include path lies in."""
    parts = path.split("/")
    two = "/".join(parts[:2])
    return two if two in RANKS else parts[0]


def _may_include(source, target):
    if source in ("tests", target):
        return True
    if target == "tests":
        return False
    if source in ONLY:
        return target in ONLY[source]
    return RANKS.get(source, 0) > RANKS.get(target, 0)


def layering(tree):
    for path in tree.with_suffix(*CPP):
        source = folder_of(path)
        for line, included in tree.includes(path):
            target = folder_of(included)
            ours = target in RANKS or target == "tests"
            if ours and not _may_include(source, target):
                yield Finding(path, line, f"{source} must not include {included}: includes flow downward only")
            elif ours and not tree.exists(included) and not included.endswith(".pb.h"):
                yield Finding(path, line, f"{included} does not exist")
        if source.startswith("engine") and source not in RANKS:
            yield Finding(path, 1, f"unknown engine folder {source}: give it a rank in tests/tidy/structure.py")


def walls(tree):
    for path in tree.with_suffix(*CPP):
        for line, included in tree.includes(path):
            for pattern, folders in WALLS:
                inside = any(path.startswith(folder + "/") for folder in folders)
                if re.match(pattern, included) and not inside:
                    yield Finding(path, line, f"{included} may be included only in {', '.join(folders)}")


def build_lists(tree):
    """Every header is guarded by #pragma once; every .cc is named by a CMake file of its folder or one above."""
    for path in tree.with_suffix(".h"):
        if not re.search(r"^#pragma once$", tree.text(path), re.MULTILINE):
            yield Finding(path, 1, "no #pragma once")
    cmake = {path: tree.text(path) for path in tree.with_suffix("CMakeLists.txt", ".cmake")}
    for path in tree.with_suffix(".cc"):
        if not any(_names(posixpath.dirname(list_path), text, path) for list_path, text in cmake.items()):
            yield Finding(path, 1, "no CMakeLists.txt names this file: it is never compiled")


def _names(folder, text, path):
    if folder and not path.startswith(folder + "/"):
        return False
    name = posixpath.relpath(path, folder or ".")
    stem = re.escape(name[: -len(".cc")])
    return re.search(rf"(?<![\w/.-]){stem}(\.cc)?(?![\w.-])", text) is not None


GOOD = {"base/clock.h": "#pragma once\n", "qos/a.h": '#pragma once\n#include "base/clock.h"\n'}
SELF_TESTS = {
    "layering": [
        (GOOD, None),
        ({**GOOD, "base/b.cc": '#include "qos/a.h"\n'}, "base must not include qos/a.h"),
        ({**GOOD, "flags/b.cc": '#include "qos/a.h"\n'}, "flags must not include qos/a.h"),
        ({"engine/backend/b.h": "", "qos/b.cc": '#include "engine/backend/b.h"\n'}, "qos must not include"),
        ({"engine/cache/b.h": "", "engine/sampling/b.cc": '#include "engine/cache/b.h"\n'}, "engine/sampling must not"),
        ({"tests/support/a.h": "", "services/b.cc": '#include "tests/support/a.h"\n'}, "services must not include"),
        ({"services/grpc/a.h": "", "loadtest/b.cc": '#include "services/grpc/a.h"\n'}, "loadtest must not include"),
        ({"loadtest/a.h": "", "services/b.cc": '#include "loadtest/a.h"\n'}, "services must not include loadtest/a.h"),
        ({"config/a.h": "#pragma once\n", "loadtest/b.cc": '#include "config/a.h"\n'}, None),
        ({"services/a.h": "", "loadtest/a.h": "", "loadtest/components/b.cc":
          '#include "services/a.h"\n#include "loadtest/a.h"\n'}, None),
        ({"loadtest/components/a.h": "", "loadtest/b.cc": '#include "loadtest/components/a.h"\n'},
         "loadtest must not include"),
        ({"services/grpc/a.h": "", "services/b.cc": '#include "services/grpc/a.h"\n'}, None),
        ({"base/b.cc": '#include "base/gone.h"\n'}, "base/gone.h does not exist"),
        ({"engine/magic/b.cc": ""}, "unknown engine folder"),
    ],
    "walls": [
        ({"services/grpc/a.cc": "#include <grpcpp/server.h>\n"}, None),
        ({"engine/llama/a.cc": '#include "llama.h"\n#include "chat.h"\n'}, None),
        ({"qos/a.cc": "#include <grpcpp/server.h>\n"}, "qos/a.cc:1: grpcpp/server.h may be included only in services"),
        ({"config/a.cc": '#include "sluice/v1/admin.pb.h"\n'}, "may be included only in services"),
        ({"services/a.cc": "#include <yaml-cpp/yaml.h>\n"}, "only in config"),
        ({"engine/models/a.cc": '#include "gguf.h"\n'}, "only in engine/llama"),
        ({"flags/a.cc": "#include <spdlog/spdlog.h>\n"}, "only in base"),
        ({"loadtest/components/a.cc": "#include <benchmark/benchmark.h>\n"}, None),
        ({"loadtest/a.cc": "#include <benchmark/benchmark.h>\n"}, "only in loadtest/components"),
        ({"services/grpc/a.cc": "#include <prometheus/registry.h>\n"}, "only in services/telemetry"),
        ({"services/clients/a.cc": '#include "base/curl/curl_handle.h"\n'}, None),
        ({"services/clients/a.cc": "#include <curl/curl.h>\n"}, "only in base/curl"),
        ({"qos/a.cc": '#include "base/curl/curl_handle.h"\n'}, "only in base/curl"),
    ],
    "build_lists": [
        ({"base/a.cc": "", "base/CMakeLists.txt": "SRCS a.cc"}, None),
        ({"base/sub/a.cc": "", "base/CMakeLists.txt": "SRCS sub/a.cc"}, None),
        ({"base/a.cc": "", "base/CMakeLists.txt": "SRCS aa.cc b_a.cc"}, "never compiled"),
        ({"base/a.cc": "", "qos/CMakeLists.txt": "SRCS a.cc"}, "never compiled"),
        ({"base/a.h": "int a;\n"}, "no #pragma once"),
    ],
}
