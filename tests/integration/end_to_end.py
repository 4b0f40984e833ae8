#!/usr/bin/env python3
"""The real server binary with the real model, as operators and their clients meet it.

Usage: end_to_end.py BIN_DIR [PART ...]
BIN_DIR holds sluice-server and sluicectl; SLUICE_TEST_MODEL names the GGUF file; SLUICE_CLIENTS is the folder that
`scripts/setup --clients` made: bin/grpcurl, bin/grpc-health-probe, python/ with tritonclient. scripts/test sets both.
Each PART is a function below; all of them without.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1]).resolve()
TOOLS = pathlib.Path(os.environ["SLUICE_CLIENTS"])
MODEL = os.environ["SLUICE_TEST_MODEL"]
GEOMETRY = {"SLUICE_ENGINE_SLOTS": "8", "SLUICE_ENGINE_SLOT_CONTEXT": "512"}


def check(condition, what):
    if not condition:
        raise AssertionError(what)
    print(f"ok: {what}", flush=True)


def run(*command, timeout=120, env=None):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, check=False,
                          env={**os.environ, **(env or {})})


class Server:
    """One sluice-server on free ports; stopped by kill at the end of the `with`, when it still runs."""

    def __init__(self, *arguments, env=None, ctl=()):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        with socket.socket() as grpc_port, socket.socket() as metrics_port:
            for s in (grpc_port, metrics_port):
                s.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{grpc_port.getsockname()[1]}"
            self.metrics = f"127.0.0.1:{metrics_port.getsockname()[1]}"
        command = [BIN / "sluice-server", "--grpc-address", self.address, "--metrics-address", self.metrics,
                   "--model", f"default={MODEL}", *arguments]
        self.process = subprocess.Popen([str(c) for c in command], stdout=self.log, stderr=self.log, cwd=ROOT,
                                        env={**os.environ, **GEOMETRY, **(env or {})})
        self.ctl_options = ["--server", self.address, *ctl]

    def __enter__(self):
        ready = self.ctl("status", "--wait", "120")
        if ready.returncode != 0:
            raise AssertionError(f"not ready: {ready.stderr}\n{self.text()}")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ctl(self, *words, **options):
        return run(BIN / "sluicectl", words[0], *self.ctl_options, *words[1:], **options)

    def text(self):
        return pathlib.Path(self.log.name).read_text()

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as response:
            return response.read().decode()


def probe(server, service):
    return run(TOOLS / "bin/grpc-health-probe", f"-addr={server.address}", f"-service={service}").returncode == 0


def clients():
    with Server() as server:
        answer = server.ctl("generate", "The capital of France is", "--max-tokens", "8", "--temperature", "0")
        check(answer.returncode == 0 and "Paris" in answer.stdout, "sluicectl generate knows Paris")
        lines = server.ctl("generate", "The capital of France is", "--max-tokens", "8", "--json").stdout.splitlines()
        check("finish" in json.loads(lines[-1]), "--json prints one message a line, the last with the finish")
        listed = run(TOOLS / "bin/grpcurl", "-plaintext", server.address, "list").stdout
        for service in ("sluice.v1.InferenceService", "sluice.v1.AdminService", "inference.GRPCInferenceService",
                        "grpc.health.v1.Health"):
            check(service in listed, f"grpcurl lists {service}")
        request = json.dumps({"prompt": "The capital of France is", "max_tokens": 8, "sampling": {"temperature": 0}})
        called = run(TOOLS / "bin/grpcurl", "-plaintext", "-d", request, server.address,
                     "sluice.v1.InferenceService/Generate")
        check(called.returncode == 0 and '"finish"' in called.stdout, "grpcurl calls Generate by reflection")
        check(probe(server, "liveness") and probe(server, "readiness"), "grpc-health-probe sees both services serve")
        oip = run(sys.executable, ROOT / "tests/integration/oip_client.py", server.address,
                  env={"PYTHONPATH": str(TOOLS / "python")}, timeout=300)
        print(oip.stdout, end="")
        check(oip.returncode == 0, f"tritonclient: metadata, infer, token stream {oip.stderr[-2000:]}")
        text = server.scrape()
        for name in ("vllm:num_requests_running", "vllm:time_to_first_token_seconds_bucket", "vllm:prompt_tokens_total",
                     "vllm:kv_cache_usage_perc", "sluice_qos_admissions_total", "sluice_flag_evaluations_total"):
            check(name in text, f"/metrics has {name}")
        check("The capital" not in server.text(), "the log holds no prompt")


def hostile_models():
    with tempfile.TemporaryDirectory() as folder:
        good = pathlib.Path(MODEL).read_bytes()
        files = {"truncated.gguf": good[: len(good) // 2], "empty.gguf": b"", "text.gguf": b"not a model" * 100,
                 "flipped.gguf": good[:200] + bytes(255 - b for b in good[200:4000]) + good[4000:8000]}
        for name, content in files.items():
            (pathlib.Path(folder) / name).write_bytes(content)
        with Server(env={"SLUICE_MODEL_ROOTS": folder}) as server:
            for name in files:
                refused = server.ctl("models", "load", name.split(".")[0], f"{folder}/{name}")
                check(refused.returncode == 1 and "MODEL_FILE_INVALID" in refused.stderr,
                      f"{name} is refused: {refused.stderr.strip()[:160]}")
            missing = server.ctl("models", "load", "missing", f"{folder}/missing.gguf")
            check("MODEL_FILE_NOT_FOUND" in missing.stderr, "a missing file is named")
            outside = server.ctl("models", "load", "passwd", "/etc/passwd")
            check("MODEL_PATH_NOT_ALLOWED" in outside.stderr, "a path outside model_roots is refused")
            answer = server.ctl("generate", "Hello", "--max-tokens", "4")
            check(answer.returncode == 0, "everything else keeps serving")
            busy = server.ctl("models", "unload", "default")
            check(busy.returncode == 0, "an idle model unloads")
            again = server.ctl("generate", "Hello", "--max-tokens", "4")
            check(again.returncode == 0, "and loads again when somebody asks for it")


def flags_reload():
    with tempfile.TemporaryDirectory() as folder:
        flags = pathlib.Path(folder) / "flags.yaml"
        text = (ROOT / "config/feature-flags.yaml").read_text()
        flags.write_text(text)
        with Server("--flags", flags) as server:
            def pipeline():
                lines = server.ctl("generate", "Hi", "--max-tokens", "2", "--json").stdout.splitlines()
                return json.loads(lines[-1])["finish"]["pipeline"]

            def reload(content, expected):
                seen = server.text().count(expected)
                flags.write_text(content)
                server.process.send_signal(signal.SIGHUP)
                deadline = time.monotonic() + 10
                while server.text().count(expected) == seen and time.monotonic() < deadline:
                    time.sleep(0.02)
                check(server.text().count(expected) > seen, f"SIGHUP: the log says '{expected}'")

            check(pipeline() == "ttft", "ttft serves at 100 %")
            off = re.sub(r"(?ms)^(ttft_pipeline:.*?rollout_percentage:) *\S+", r"\1 0", text)
            reload(off, "flags reloaded")
            check(pipeline() == "baseline", "baseline serves at 0 %")
            reload("ttft_pipeline: {enabled: maybe}", "flags kept as they were")
            check(pipeline() == "baseline", "a broken file changes nothing")


def drain():
    with Server() as server:
        stream = subprocess.Popen([str(BIN / "sluicectl"), "generate", *server.ctl_options, "Count slowly:",
                                   "--max-tokens", "400", "--ignore-eos", "--json"], stdout=subprocess.PIPE, text=True)
        first = stream.stdout.readline()
        check(first, "a stream runs")
        rest = []
        reader = threading.Thread(target=lambda: rest.extend(stream.stdout))
        reader.start()
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while probe(server, "readiness") and time.monotonic() < deadline:
            time.sleep(0.02)
        check(not probe(server, "readiness"), "SIGTERM turns readiness off")
        check(probe(server, "liveness"), "liveness stays")
        late = server.ctl("generate", "Late", "--max-tokens", "2")
        check(late.returncode == 1 and "DRAINING" in late.stderr and "try again" in late.stderr,
              "late work is refused with a time to come back")
        check(stream.wait(timeout=60) == 0, "the running stream completes")
        reader.join()
        check(json.loads(rest[-1])["finish"]["usage"]["output_tokens"] == 400, "with all of its 400 tokens")
        check(server.process.wait(timeout=60) == 0, "the server exits with 0")


def certificate(folder, name, issuer=None):
    key, request, cert = (folder / f"{name}.{e}" for e in ("key", "csr", "pem"))
    sh = lambda *c: subprocess.run([str(x) for x in c], check=True, capture_output=True)
    if issuer is None:
        sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
           "-subj", f"/CN={name}")
        return
    sh("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    extensions = folder / "san"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    sh("openssl", "x509", "-req", "-in", request, "-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key",
       "-CAcreateserial", "-out", cert, "-days", "2", "-extfile", extensions)


def tls_and_keys():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for who, issuer in (("ca", None), ("server", "ca"), ("client", "ca"), ("stranger", None)):
            certificate(folder, who, issuer)
        keys = folder / "keys.yaml"
        digest = lambda t: run("sh", "-c", f"printf %s {t} | sha256sum").stdout.split()[0]
        keys.write_text(f"keys:\n  - {{name: app, token_sha256: {digest('secret')}, tenant: acme}}\n"
                        f"  - {{name: ops, token_sha256: {digest('root')}, tenant: ops, admin: true}}\n")
        env = {"SLUICE_SERVER_TLS_CERTIFICATE_FILE": str(folder / "server.pem"),
               "SLUICE_SERVER_TLS_KEY_FILE": str(folder / "server.key"),
               "SLUICE_SERVER_TLS_CLIENT_CA_FILE": str(folder / "ca.pem"),
               "SLUICE_SERVER_TLS_RELOAD_INTERVAL_MS": "1000"}
        trusted = ["--ca", folder / "ca.pem", "--cert", folder / "client.pem", "--key", folder / "client.key"]
        with Server("--api-keys", keys, env=env, ctl=[*trusted, "--token", "root"]) as server:
            address = ["--server", server.address]
            short = ["Hi", "--max-tokens", "2", "--timeout", "10"]
            generate = lambda *o: run(BIN / "sluicectl", "generate", *address, *o, *short)
            check(generate(*trusted, "--token", "secret").returncode == 0, "mTLS with a token serves")
            check("TOKEN_MISSING" in generate(*trusted).stderr, "no token: UNAUTHENTICATED")
            check("TOKEN_UNKNOWN" in generate(*trusted, "--token", "x").stderr, "a wrong token is refused")
            stranger = ["--ca", folder / "ca.pem", "--cert", folder / "stranger.pem", "--key", folder / "stranger.key"]
            check(generate(*stranger, "--token", "secret").returncode == 3, "a stranger's certificate is refused")
            check(generate().returncode == 3, "plain text is refused")
            status = run(BIN / "sluicectl", "status", *address, *trusted, "--token", "secret")
            check("ADMIN_REQUIRED" in status.stderr, "admin calls need an admin token")
            old = (folder / "server.pem").read_bytes()
            for f in ("server.pem", "server.key"):
                shutil.move(folder / f, folder / f"old-{f}")
            certificate(folder, "server", "ca")
            check((folder / "server.pem").read_bytes() != old, "the certificate is rotated")
            shown = (f"openssl s_client -connect {server.address} -cert {folder}/client.pem -key {folder}/client.key "
                     "-alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -serial")
            serial = lambda: run("sh", "-c", shown).stdout
            wanted = run("openssl", "x509", "-noout", "-serial", "-in", folder / "server.pem").stdout
            deadline = time.monotonic() + 20
            while serial() != wanted and time.monotonic() < deadline:
                time.sleep(0.2)
            check(serial() == wanted, "and the running server shows the new one")
            check(generate(*trusted, "--token", "secret").returncode == 0, "and serves with it")


def refusals_to_start():
    def refused(*arguments, env=None):
        answer = run(BIN / "sluice-server", *arguments,
                     env={"SLUICE_SERVER_GRPC_ADDRESS": "127.0.0.1:0", **(env or {})})
        check(answer.returncode == 2, f"refused to start: {answer.stderr.strip()[:300]}")
        return answer.stderr

    with tempfile.TemporaryDirectory() as folder:
        bad = pathlib.Path(folder) / "bad.yaml"
        bad.write_text("server:\n  grpc_adress: x\nengine:\n  slots: many\n  slot_context: -1\n")
        text = refused("--config", bad, "--model", f"default={MODEL}")
        check("bad.yaml:2" in text and "grpc_address" in text, "an unknown key is named with its line and a suggestion")
        check("bad.yaml:4" in text and "bad.yaml:5" in text, "all errors at once")
    open_bind = {"SLUICE_SERVER_GRPC_ADDRESS": "0.0.0.0:0"}
    check("insecure" in refused("--config", ROOT / "config/runtime.yaml", "--model", f"default={MODEL}", env=open_bind),
          "a bind beyond loopback without TLS and keys")
    check("MODEL" in refused("--config", ROOT / "config/runtime.yaml", env={"MODEL_PATH": ""}),
          "no model: how to name one")
    check("--help" in refused("--nonsense"), "an unknown argument points to --help")


PARTS = [clients, hostile_models, flags_reload, drain, tls_and_keys, refusals_to_start]

if __name__ == "__main__":
    wanted = sys.argv[2:]
    for part in PARTS:
        if not wanted or part.__name__ in wanted:
            print(f"--- {part.__name__}", flush=True)
            part()
