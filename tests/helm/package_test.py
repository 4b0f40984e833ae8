#!/usr/bin/env python3
"""The packaged tree, which is what the image holds: complete, without traces of this machine, and it runs.

usage: package_test.py BIN_DIR
"""
import functools
import hashlib
import http.server
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest

import chart
from chart import GOLDEN, ROOT, documents, named
from server import Server

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
FOLDER = tempfile.TemporaryDirectory()
OUT = pathlib.Path(FOLDER.name)
NOBODY = 65532


def setUpModule():
    done = chart.run(ROOT / "scripts/package", "--binaries", BIN, "--output", OUT / "made")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next((OUT / "made").glob("*.tar.gz"))) as tarball:
        tarball.extractall(OUT / "tree")
    OUT.chmod(0o755)


def as_nobody(command):
    """As the pod does, where the test has the right to."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command] if os.geteuid() == 0 else \
        command


class Tree(unittest.TestCase):
    def test_sums_are_right_and_complete(self):
        done = chart.run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=OUT / "tree")
        self.assertEqual(done.returncode, 0, done.stdout)
        files = {str(path.relative_to(OUT / "tree")) for path in (OUT / "tree").rglob("*") if path.is_file()}
        listed = {line.split("./", 1)[1] for line in (OUT / "tree/SHA256SUMS").read_text().splitlines()}
        self.assertEqual(files - listed, {"SHA256SUMS"})

    def test_the_same_input_gives_the_same_bytes(self):
        chart.run(ROOT / "scripts/package", "--binaries", BIN, "--output", OUT / "again")
        one, two = (hashlib.sha256(next((OUT / name).glob("*.tar.gz")).read_bytes()).hexdigest()
                    for name in ("made", "again"))
        self.assertEqual(one, two)

    def test_packages_cover_every_library(self):
        packages = [line.split("=")[0] for line in (OUT / "tree/PACKAGES").read_text().split()]
        have = set(chart.run("dpkg-query", "-L", *[p for p in packages if p not in ("curl",)]).stdout.split())
        have |= {f"/usr{path}" for path in have}
        for binary in (*(OUT / "tree/libexec").iterdir(), OUT / "tree/bin/sluicectl"):
            for path in re.findall(r"=> (/\S+)", chart.run("ldd", binary).stdout):
                self.assertIn(str(pathlib.Path(path).resolve()), have, binary.name)

    def test_dockerfile_copies_what_the_tree_has(self):
        text = (ROOT / "Dockerfile").read_text()
        for source in re.findall(r"COPY --from=build /package/tree/(\S+) ", text):
            self.assertTrue((OUT / "tree" / source).exists(), source)
        self.assertIn(f"USER {NOBODY}:{NOBODY}", text)
        pod = chart.pod_of(named(documents((GOLDEN / "default-values.golden").read_text()), "Deployment"))
        self.assertEqual(pod["containers"][0]["securityContext"]["runAsUser"], NOBODY)


class Launcher(unittest.TestCase):
    def chosen(self, flags, kinds):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("bin", "libexec"):
                pathlib.Path(folder, name).mkdir()
            pathlib.Path(folder, "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
            launcher = pathlib.Path(folder, "bin/sluice-server")
            launcher.write_bytes((OUT / "tree/bin/sluice-server").read_bytes())
            launcher.chmod(0o755)
            for kind in kinds:
                stub = pathlib.Path(folder, f"libexec/sluice-server-{kind}")
                stub.write_text(f'#!/bin/sh\necho {kind} "$@"\n')
                stub.chmod(0o755)
            return chart.run(launcher, "--check", env={**os.environ, "SLUICE_CPUINFO": f"{folder}/cpuinfo"})

    def test_it_takes_the_best_that_runs(self):
        kinds = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-vnni", "x86-64-amx")
        v2, v3 = "ssse3 sse4_2 popcnt", "ssse3 sse4_2 popcnt avx avx2 fma f16c bmi2"
        v4 = v3 + " avx512f avx512bw avx512cd avx512dq avx512vl"
        vnni = v4 + " avx512vbmi avx512_vnni"
        for flags, kind in ((v2, "x86-64-v2"), (v3, "x86-64-v3"), (v4, "x86-64-v4"),
                            (vnni, "x86-64-vnni"), (vnni + " avx512_bf16 amx_tile amx_int8", "x86-64-amx")):
            self.assertEqual(self.chosen(flags, kinds).stdout, f"{kind} --check\n")
        self.assertEqual(self.chosen(v4, kinds[:2]).stdout, "x86-64-v3 --check\n")

    def test_a_cpu_that_is_too_old_is_told_so(self):
        done = self.chosen("ssse3", ("x86-64-v2", "x86-64-v3"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("needs SSE4.2", done.stderr)


class Run(unittest.TestCase):
    def test_it_serves_as_nobody_and_drains_as_process_1(self):
        """Process 1 of a container: the kernel gives it no default handlers, so SIGTERM must be handled."""
        may = chart.run("unshare", "--pid", "--fork", "true").returncode == 0
        alone = ["unshare", "--pid", "--fork"] if may else []
        wrapper = OUT / "run"
        wrapper.mkdir()
        (wrapper / "sluicectl").symlink_to(OUT / "tree/bin/sluicectl")
        command = " ".join(alone + as_nobody([str(OUT / "tree/bin/sluice-server")]))
        (wrapper / "sluice-server").write_text(f'#!/bin/sh\ncd /\nexec {command} "$@"\n')
        (wrapper / "sluice-server").chmod(0o755)
        with Server(wrapper) as server:
            server.generate("hello")
            self.assertEqual(server.ctl("health").stdout, "SERVING\n")
            pid = server.process.pid
            if alone:
                pid = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text())
                self.assertRegex(pathlib.Path(f"/proc/{pid}/status").read_text(), r"NSpid:\s+\d+\s+1\n")
            if os.geteuid() == 0:
                self.assertIn(f"Uid:\t{NOBODY}\t{NOBODY}", pathlib.Path(f"/proc/{pid}/status").read_text())
            os.kill(pid, signal.SIGTERM)
            self.assertEqual(server.process.wait(30), 0)
        self.assertIn("drained", server.text())


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked = []

    def do_GET(self):  # pylint: disable=invalid-name
        Quiet.asked.append(self.headers.get("Authorization"))
        super().do_GET()

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass


class FetchModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        (OUT / "web").mkdir()
        (OUT / "web/model.gguf").write_bytes(b"GGUF and more")
        cls.sum = hashlib.sha256(b"GGUF and more").hexdigest()
        cls.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=OUT / "web"))
        threading.Thread(target=cls.http.serve_forever, daemon=True).start()
        cls.url = f"http://127.0.0.1:{cls.http.server_port}/model.gguf"

    @classmethod
    def tearDownClass(cls):
        cls.http.shutdown()
        cls.http.server_close()

    def fetch(self, checksum, target, url=None, **env):
        return subprocess.run([OUT / "tree/bin/sluice-fetch-model", url or self.url, checksum, target], check=False,
                              capture_output=True, text=True, timeout=60, env={**os.environ, **env})

    def test_rendered_arguments_are_what_it_takes(self):
        pod = chart.pod_of(named(documents((GOLDEN / "download-values.golden").read_text()), "Deployment"))
        init = pod["initContainers"][0]
        self.assertEqual((init["command"], len(init["args"])), (["sluice-fetch-model"], 3))
        self.assertRegex(init["args"][1], "^[0-9a-f]{64}$")
        self.assertIn(init["args"][2], (GOLDEN / "download-values.golden").read_text().split("path: ")[1])

    def test_a_right_file_arrives_once_and_the_token_is_sent(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder, "m.gguf")
            done = self.fetch(self.sum, target, FETCH_TOKEN="s3cret")
            self.assertEqual((done.returncode, target.read_bytes()), (0, b"GGUF and more"), done.stderr)
            self.assertEqual(Quiet.asked[-1], "Bearer s3cret")
            again = self.fetch(self.sum, target, url="http://127.0.0.1:1/gone")
            self.assertEqual(again.returncode, 0, "a file that fits needs no network")

    def test_a_wrong_file_is_refused_and_deleted(self):
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder, "m.gguf")
            done = self.fetch("0" * 64, target)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"has the checksum {self.sum}, expected is 000", done.stderr)
            self.assertEqual(list(pathlib.Path(folder).iterdir()), [])
            self.assertNotEqual(self.fetch(self.sum, target, url=self.url + "x").returncode, 0)


if __name__ == "__main__":
    unittest.main()
