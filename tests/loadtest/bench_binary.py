#!/usr/bin/env python3
"""The sluice-bench binary as its users drive it: real processes, real sockets, the synthetic backend.

Usage: bench_binary.py BIN_DIR [PART ...]
BIN_DIR holds sluice-bench, sluice-server and sluicectl. Each PART is a function below; all of them without.
"""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1]).resolve()
REACHED, MISSED, INVALID, UNREACHABLE = 0, 1, 2, 3
# Freed memory is overwritten, so that a use after free does not go unseen.
ENVIRONMENT = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.perturb=165"}


def check(condition, what):
    if not condition:
        raise AssertionError(what)
    print(f"ok: {what}", flush=True)


def run(*command, env=None, timeout=120):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, check=False,
                          cwd=ROOT, env={**ENVIRONMENT, **(env or {})})


def bench(*words, **options):
    return run(BIN / "sluice-bench", *words, **options)


def expect(result, code, *texts):
    """The exit code, and every text somewhere in what was said."""
    said = result.stdout + result.stderr
    good = result.returncode == code and all(t in said for t in texts)
    name = " ".join(pathlib.Path(a).name for a in result.args[:3])
    check(good, f"{name}: exit {code} {', '.join(texts)}" + ("" if good else f" but {result.returncode}:\n{said}"))


def report(folder):
    return json.loads((folder / "report.json").read_text())


def wait_until(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


@contextlib.contextmanager
def sluice_server(*arguments, model="synthetic:step_us=1000", env=None, ctl=()):
    """HOST:PORT of a server on the synthetic backend."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.NamedTemporaryFile("w+") as log:
        command = [BIN / "sluice-server", "--grpc-address", f"127.0.0.1:{port}", "--metrics-address", "127.0.0.1:0",
                   "--model", f"default={model}", *arguments]
        process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, cwd=ROOT,
                                   env={**ENVIRONMENT, **(env or {})})
        try:
            ready = run(BIN / "sluicectl", "status", "--server", f"localhost:{port}", "--wait", "60", *ctl)
            check(ready.returncode == 0, f"a server runs {ready.stderr}{pathlib.Path(log.name).read_text()}"
                  if ready.returncode else "a server runs")
            yield f"localhost:{port}", process
        finally:
            process.kill()
            process.wait()


class FakeOpenAi(http.server.BaseHTTPRequestHandler):
    """An OpenAI server that streams four words to everybody."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("application/json", [json.dumps({"data": [{"id": "fake"}]})])

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        events = [{"choices": [{"index": 0, "text": " word", "finish_reason": None}]} for _ in range(4)]
        events[-1]["choices"][0]["finish_reason"] = "length"
        events.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}})
        self.answer("text/event-stream", [f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n"
                                          for e in [*events, "[DONE]"]])

    def answer(self, kind, parts):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in [*parts, ""]:
            self.wfile.write(f"{len(part):x}\r\n{part}\r\n".encode())
            self.wfile.flush()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def openai_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeOpenAi) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


# The machine may be busy with other tests; nothing here is about its speed.
ANY_SPEED = ["--set", "limits.lag_ms=60000", "--set", "limits.generator_cpu=10000"]


def short(folder, requests=40):
    return ["--requests", requests, "--concurrency", 4, "--warmup", 0, "--prompt-tokens", 8, "--output-tokens", 4,
            "--out", folder, *ANY_SPEED]


def doors(tmp):
    with sluice_server() as (address, _), openai_server() as openai:
        for url in (f"grpc://{address}", f"kserve://{address}", f"http://{openai}"):
            folder = tmp / url.split(":")[0]
            expect(bench("load", url, *short(folder)), REACHED, "MEASURED")
            (cell,) = report(folder)["cells"]
            check((cell["succeeded"], cell["failed"]) == (40, 0), f"{url}: all of 40 requests succeeded")
            check(cell["latencies"]["ttft_ms"]["p50"]["value"] > 0, "TTFT was measured")
            check(abs(cell["output_tokens_per_s"] / cell["requests_per_s"] - 4) < 0.01,
                  "four tokens a request")
            vllm = json.loads((folder / "vllm-target.json").read_text())
            check((vllm["completed"], vllm["total_output_tokens"]) == (40, 160), "vLLM's keys say the same")
            check("<svg" in (folder / "report.html").read_text(), "the page has plots")
            for name in ("report.md", "report.txt"):
                check((folder / name).stat().st_size > 500, f"{name} is written")
        (tmp / "started.yaml").write_text("name: x\nengines: [{name: a, start: sluice, door: kserve, slots: 2}]\n"
                                          "load: {mode: closed, requests: 5, warmup_s: 0, blocks: 1}\n")
        expect(bench("run", tmp / "started.yaml", "--model-file", "synthetic:", "--out", tmp / "started", *ANY_SPEED),
               REACHED, "starting a")
        check(report(tmp / "started")["environment"]["geometry.a"].startswith("2 slots"), "its geometry is on record")
        for i in range(5):  # over before a timer could be late
            expect(bench("load", f"grpc://{address}", "--requests", 1, "--concurrency", 1, "--warmup", 0,
                         "--prompt-tokens", 4, "--output-tokens", 1, "--out", tmp / f"one{i}", *ANY_SPEED), REACHED)
        expect(bench("load", f"http://{openai}", *short(tmp / "chat"), "--form", "chat", "--model", "fake"), REACHED)
        expect(bench("load", f"grpc://{address}", "--rate", 200, "--duration", 1, "--warmup", 0.5, "--blocks", 2,
                     "--out", tmp / "open", *ANY_SPEED), REACHED, "200 req/s")


def refusals(tmp):
    def scenario(text):
        (tmp / "bad.yaml").write_text(text)
        return tmp / "bad.yaml"

    expect(bench("--help"), REACHED, "usage:")
    for name in ("load", "run", "suite", "engines", "compare", "plot", "components"):
        expect(bench(name, "--help"), REACHED, name)
    expect(bench(), INVALID, "usage:")
    expect(bench("lod"), INVALID, "lod", "--help")
    expect(bench("load"), INVALID, "URL")
    expect(bench("load", "grpc://127.0.0.1:1", "--nonsense"), INVALID, "--help")
    expect(bench("load", "grpc://127.0.0.1:1", "--rate", "many"), INVALID, "--rate")
    expect(bench("load", "ftp://127.0.0.1:1", "--out", tmp / "ftp"), INVALID, "kserve://")
    expect(bench("run", "no-such-scenario"), INVALID, "regression", "throughput")
    engine = "engines:\n  - {name: a, url: \"grpc://127.0.0.1:1\"}\n"
    expect(bench("run", scenario(f"name: x\n{engine}load:\n  raet: 5\n")), INVALID, "bad.yaml:5", "raet", "rate")
    expect(bench("run", scenario(f"name: x\n{engine}load: {{mode: constant, rate: 0}}\n")), INVALID, "bad.yaml:4",
           "rate")
    for url in ("grpc://127.0.0.1:1", "kserve://127.0.0.1:1", "http://127.0.0.1:1"):
        expect(bench("load", url, *short(tmp / "none")), UNREACHABLE, url, "listening")
    start = "name: x\nengines: [{name: a, start: sluice, env: {SLUICE_ENGINE_SLOTS: many}}]\n"
    expect(bench("run", scenario(start), "--out", tmp / "none", env={"SLUICE_BENCH_MODEL": ""}), INVALID,
           "--model-file")
    expect(bench("run", scenario(start), "--out", tmp / "none", "--model-file", "synthetic:"), UNREACHABLE,
           "ended with exit code 2", "SLUICE_ENGINE_SLOTS")
    expect(bench("run", scenario(start), "--sluice-server", tmp / "gone", "--model-file", "synthetic:", "--out",
                 tmp / "none"), INVALID, "there is no program")
    with sluice_server() as (address, _):
        wrong = bench("load", f"grpc://{address}", *short(tmp / "none"), "--model", "nope")
        expect(wrong, INVALID, "has no model 'nope'", "default")
        expect(bench("load", f"grpcs://{address}", *short(tmp / "none")), UNREACHABLE, "TLS")


def judged(tmp):
    with sluice_server() as (address, _):
        def scenario(limit):
            (tmp / "judged.yaml").write_text(
                f"name: judged\nengines: [{{name: a, url: \"grpc://{address}\"}}]\n"
                "workload: {prompt_tokens: 8, output_tokens: 4}\n"
                "load: {mode: closed, concurrency: 2, requests: 60, warmup_s: 0, blocks: 2}\n"
                f"checks: [{{metric: ttft_p50_ms, at_most: {limit}}}, {{metric: error_rate, at_most: 0.9}}]\n")
            return tmp / "judged.yaml"

        expect(bench("run", scenario(10000), "--out", tmp / "a", *ANY_SPEED), REACHED, "2 reached")
        expect(bench("run", scenario(0.001), "--out", tmp / "b", *ANY_SPEED), MISSED, "MISSED")
        expect(bench("run", scenario(10000), "--out", tmp / "c", "--set", "engines.a.expect_pipeline=baseline",
                     *ANY_SPEED),
               INVALID, "served by pipeline 'ttft'")
    expect(bench("plot", tmp / "b"), MISSED, "MISSED")
    (tmp / "a/report.html").unlink()
    expect(bench("plot", tmp / "a/run.jsonl"), REACHED, "2 reached")
    check((tmp / "a/report.html").exists(), "plot writes the reports again")
    expect(bench("compare", tmp / "a", tmp / "b/report.json"), REACHED, "ttft_p50_ms", "requests_per_s")
    other = report(tmp / "a")
    other["environment"]["fingerprint"] = "another machine"
    (tmp / "other.json").write_text(json.dumps(other))
    expect(bench("compare", tmp / "a", tmp / "other.json"), INVALID, "different machines")
    expect(bench("compare", tmp / "a", tmp / "other.json", "--any-machine"), REACHED, "ttft_p50_ms")
    (tmp / "other.json").write_text(json.dumps({**other, "scenario": "another"}))
    expect(bench("compare", tmp / "a", tmp / "other.json", "--any-machine"), INVALID, "different scenarios")
    (tmp / "other.json").write_text("{")
    expect(bench("compare", tmp / "a", tmp / "other.json"), INVALID, "no report.json")
    expect(bench("compare", tmp / "a", tmp / "gone"), INVALID, "gone")
    expect(bench("plot", tmp / "gone"), INVALID, "gone")


def regression(tmp):
    (tmp / "slow.yaml").write_text(
        "name: slow\nkind: regression\nengines: [{name: a, url: \"grpc://HOST\"}]\n"
        "workload: {prompt_tokens: 8, output_tokens: 4}\n"
        "load: {mode: closed, concurrency: 2, requests: 20, warmup_s: 0, blocks: 3}\n"
        "compare: [e2e_mean_ms, requests_per_s]\ntolerance: 0.5\n")
    baseline = tmp / "baseline.json"
    with sluice_server(model="synthetic:step_us=2000") as (usual, _), \
            sluice_server(model="synthetic:step_us=20000") as (slow, _):
        def against(address, *words):
            return bench("run", tmp / "slow.yaml", "--set", f"engines.a.url=grpc://{address}", "--out", tmp / "out",
                         *ANY_SPEED, *words)

        expect(against(usual), INVALID, "--save-baseline")
        expect(against(usual, "--baseline", tmp / "gone.json"), INVALID, "gone.json")
        expect(against(usual, "--save-baseline", baseline), REACHED, "baseline saved")
        expect(against(usual, "--baseline", baseline), REACHED, "2 reached")
        expect(against(slow, "--baseline", baseline), MISSED, "missed", "e2e_mean_ms")
        text = json.loads(baseline.read_text())
        text["fingerprint"] = "another machine"
        baseline.write_text(json.dumps(text))
        expect(against(usual, "--baseline", baseline), INVALID, "another machine")
        baseline.write_text("{}")
        expect(against(usual, "--baseline", baseline), INVALID, "no baseline of sluice-bench")
        expect(against("127.0.0.1:1", "--save-baseline", tmp / "none.json"), UNREACHABLE, "listening")
        check(not (tmp / "none.json").exists(), "without a run there is no baseline")


def interrupted(tmp):
    with sluice_server() as (address, server):
        def start(folder):
            command = [BIN / "sluice-bench", "load", f"grpc://{address}", "--rate", 100, "--duration", 100,
                       "--warmup", 0, "--output-tokens", 4, "--out", folder, *ANY_SPEED]
            process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       text=True, cwd=ROOT, env=ENVIRONMENT)
            lines = lambda: (folder / "run.jsonl").exists() and (folder / "run.jsonl").read_text().count("\n") > 50
            wait_until(lines, "requests in run.jsonl")
            return process

        process = start(tmp / "stopped")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
        check(process.returncode == INVALID and "ended early" in said, "Ctrl-C: exit 2, and the report says so")
        (cell,) = report(tmp / "stopped")["cells"]
        check(cell["succeeded"] > 40, f"with what was measured: {cell['succeeded']} requests")
        expect(bench("plot", tmp / "stopped"), INVALID, "ended early")
        check(report(tmp / "stopped")["cells"][0]["succeeded"] == cell["succeeded"], "plot finds the same")

        process = start(tmp / "killed")
        process.kill()
        process.communicate()
        expect(bench("plot", tmp / "killed"), INVALID, "did not end")
        check((tmp / "killed/report.html").exists(), "what a killed run wrote is readable")

        process = start(tmp / "died")
        server.kill()
        said, _ = process.communicate(timeout=60)
        check(process.returncode == INVALID and "UNAVAILABLE" in said and "ended early" in said,
              "the server dies: exit 2, and the report says what the calls got")


def stopped_early(tmp):
    """Ctrl-C while servers are still looked for; runs that are refused; engines of a run that is killed."""
    def start(*words):
        return subprocess.Popen([str(w) for w in (BIN / "sluice-bench", *words)], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=ENVIRONMENT)

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # the kernel accepts; nobody ever answers
        for scheme in ("grpc", "kserve", "http"):
            process = start("load", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", *short(tmp / scheme))
            wait_until((tmp / scheme).exists, f"{scheme}: the folder of the results")
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=8)  # it would have tried for 10 s
            check(process.returncode == INVALID and "ended early: interrupted" in said,
                  f"{scheme}: Ctrl-C before the server answered: exit 2, said in the report")
            check(report(tmp / scheme)["cells"] == [], "which has no numbers")

    expect(bench("load", "http://127.0.0.1:1", *short(tmp / "refused")), UNREACHABLE, "listening")
    check(not (tmp / "refused").exists(), "a refused run leaves no folder")
    (tmp / "mine").mkdir()
    expect(bench("load", "http://127.0.0.1:1", *short(tmp / "mine")), UNREACHABLE, "listening")
    check((tmp / "mine").exists(), "but it does not remove one that was there")

    (tmp / "long.yaml").write_text("name: x\nengines: [{name: a, start: sluice}]\nworkload: {output_tokens: 4}\n"
                                   "load: {mode: constant, rate: 20, duration_s: 100, warmup_s: 0, blocks: 1}\n")
    process = start("run", tmp / "long.yaml", "--model-file", "synthetic:", "--out", tmp / "killed", *ANY_SPEED)
    wait_until(lambda: (tmp / "killed/run.jsonl").exists(), "the engine is ready")
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (engine,) = children.read_text().split()
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(engine), "the engine of a killed run ends")
    check(True, "kill -9 takes the engine along")


def alive(pid):
    """A process that runs: a zombie, which some init has not collected yet, does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def secured(tmp):
    made = run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp / "key.pem", "-out",
               tmp / "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    check(made.returncode == 0, "a certificate")
    secret = "token-of-the-test"
    (tmp / "keys.yaml").write_text(f"keys:\n  - {{name: app, tenant: acme, admin: true, "
                                   f"token_sha256: {hashlib.sha256(secret.encode()).hexdigest()}}}\n")
    tls = {"SLUICE_SERVER_TLS_CERTIFICATE_FILE": str(tmp / "cert.pem"),
           "SLUICE_SERVER_TLS_KEY_FILE": str(tmp / "key.pem")}
    token, ca = {"SLUICE_BENCH_TOKEN": secret}, ["--ca", tmp / "cert.pem"]
    with sluice_server("--api-keys", tmp / "keys.yaml", env=tls, ctl=[*ca, "--token", secret]) as (address, _):
        for scheme in ("grpcs", "kserves"):
            load = lambda *words, env=None: bench("load", f"{scheme}://{address}", *short(tmp / scheme), *words,
                                                  env=env)
            expect(load(*ca, env=token), REACHED, "MEASURED")
            files = [f for f in (tmp / scheme).iterdir() if secret in f.read_text(errors="replace")]
            check(not files, f"no file of the results holds the token {files}")
            expect(load(*ca), INVALID, "needs a token")
            expect(load(*ca, env={"SLUICE_BENCH_TOKEN": "wrong"}), INVALID, "token")
            expect(load(env=token), UNREACHABLE, "TLS")
            expect(load("--ca", tmp / "gone.pem", env=token), INVALID, "gone.pem")
            expect(load("--ca", tmp / "keys.yaml", env=token), INVALID, "keys.yaml' holds no PEM certificate")
            expect(bench("load", f"{scheme[:-1]}://{address}", *short(tmp / scheme), env=token), UNREACHABLE,
                   "plaintext")


def repeated(tmp):
    """gRPC 1.51 corrupts the heap when a channel's last reference drops in its own callback."""
    with sluice_server(model="synthetic:") as (address, server):
        for i in range(20):
            url = f"{('grpc', 'kserve')[i % 2]}://{address}"
            result = bench("load", url, *short(tmp / "again", requests=60), "--concurrency", 16)
            if result.returncode != REACHED:
                raise AssertionError(f"run {i}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        check(server.poll() is None, "20 runs, each reached its end; the server lives")


PARTS = [doors, refusals, judged, regression, interrupted, stopped_early, secured, repeated]

if __name__ == "__main__":
    wanted = sys.argv[2:]
    for part in PARTS:
        if not wanted or part.__name__ in wanted:
            print(f"--- {part.__name__}", flush=True)
            with tempfile.TemporaryDirectory() as name:
                part(pathlib.Path(name))
