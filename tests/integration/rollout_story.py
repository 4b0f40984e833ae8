#!/usr/bin/env python3
"""Three replicas of the real server binary, one state store, and a candidate that is healthy, then faulty in four ways.

Usage: rollout_story.py BIN_DIR [--store file|etcd] [--rate N] [PART ...]
Synthetic backend (labelled so in what it prints). Parts: healthy errors latency leak crashes; all of them without.
Prints for each fault how long it took from the fault to the last request that the candidate served, and how many
requests it hurt.
"""

import argparse
import datetime
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAG = "ttft_pipeline"
ROLLOUTS = """
window_ms: 500
rollouts:
  - flag: ttft_pipeline
    stages:
      - {percent: 10, dwell_ms: 3000, min_samples: 50}
      - {percent: 50, dwell_ms: 3000, min_samples: 100}
      - {percent: 100, dwell_ms: 3000, min_samples: 100}
    analysis:
      allowed_error_percent: 5
      max_ttft_p95_ratio: 3          # the machine is shared: tails of a millisecond double by chance
      max_latency_p95_ratio: 3
      memory_span_ms: 10000
      min_memory_growth_bytes: 1000000
    rollback: {cool_down_ms: 1000}
"""
FAULTS = {"errors": "ttft: {error_percent: 20}", "latency": "ttft: {delay_ms: 150}",
          "leak": "ttft: {leak_bytes: 20000}", "crashes": "ttft: {crash_percent: 1}"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Etcd:
    """A real etcd on loopback."""

    def __init__(self, folder):
        client, peer = free_port(), free_port()
        self.endpoint = f"127.0.0.1:{client}"
        self.process = subprocess.Popen(
            ["etcd", "--data-dir", folder / "etcd", "--listen-client-urls", f"http://{self.endpoint}",
             "--advertise-client-urls", f"http://{self.endpoint}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster",
             f"default=http://127.0.0.1:{peer}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Replica:
    def __init__(self, options, folder, number, env):
        self.options, self.folder, self.number = options, folder, number
        self.address, self.metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.log = folder / f"server-{number}.log"
        self.env = {**os.environ, **env, "SLUICE_REPLICA_ID": f"replica-{number}"}
        self.restarts = 0
        self.stopping = False
        self.start()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def start(self):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.options.bin / "sluice-server", "--config", self.folder / "runtime.yaml", "--rollouts",
                 self.folder / "rollouts.yaml", "--model", "m=synthetic:", "--grpc-address", self.address,
                 "--metrics-address", self.metrics], stdout=log, stderr=log, cwd=ROOT, env=self.env)

    def watch(self):
        """What a supervisor does: a process that dies is started again."""
        while not self.stopping:
            self.process.wait()
            if not self.stopping and self.restarts < 100:
                self.restarts += 1
                self.start()

    def ctl(self, *words):
        return subprocess.run([self.options.bin / "sluicectl", *words, "--server", self.address], capture_output=True,
                              text=True, timeout=60, check=False)

    def metric(self, name):
        try:
            text = urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5).read().decode()
        except OSError:
            return None
        found = re.search(rf'^{name}{{flag="{FLAG}"[^}}]*}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else None

    def requests_since(self, start):
        """(time, pipeline, failed) of each request in the log from `start` on."""
        out = []
        for line in open(self.log, encoding="utf-8", errors="replace"):
            if " request request_id=" not in line:
                continue
            when = datetime.datetime.strptime(line[:23], "%Y-%m-%dT%H:%M:%S.%f").replace(
                tzinfo=datetime.timezone.utc).timestamp()
            if when >= start:
                out.append((when, re.search(r"pipeline=(\S*)", line)[1], "FAULT_INJECTED" in line))
        return out

    def stop(self):
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Story:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.faults = folder / "faults.yaml"
        self.faults.write_text("{}\n")
        (folder / "rollouts.yaml").write_text(ROLLOUTS)
        (folder / "runtime.yaml").write_text((ROOT / "config/runtime.yaml").read_text())
        env = {"SLUICE_FAULT_FILE": str(self.faults), "SLUICE_STATE_FOLDER": str(folder / "state")}
        self.etcd = None
        if options.store == "etcd":
            self.etcd = Etcd(folder)
            env |= {"SLUICE_STATE_STORE": "etcd", "SLUICE_STATE_ETCD_ENDPOINTS": self.etcd.endpoint}
        self.replicas = [Replica(options, folder, i, env) for i in range(3)]
        self.load = []
        try:
            for replica in self.replicas:
                self.wait(30, lambda r=replica: r.ctl("status", "--wait", "10").returncode == 0, "a server is ready")
        except AssertionError:
            self.close()
            raise

    def wait(self, seconds, condition, what):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.05)
        for replica in self.replicas:
            print(replica.ctl("rollout").stdout, file=sys.stderr)
        raise AssertionError(f"not within {seconds} s: {what}")

    def start_load(self, seconds):
        each = self.options.rate / len(self.replicas)
        self.load = [subprocess.Popen(
            [self.options.bin / "sluice-bench", "load", f"grpc://{r.address}", "--rate", f"{each:g}", "--duration",
             f"{seconds}", "--warmup", "0", "--prompt-tokens", "16", "--output-tokens", "4", "--model", "m", "--out",
             str(self.folder / f"load-{r.number}")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for r in self.replicas]

    def stop_load(self):
        for process in self.load:
            process.terminate()
            process.wait()
        self.load = []

    def shares(self):
        return [r.metric("sluice_rollout_percentage") for r in self.replicas]

    def begin(self):
        self.faults.write_text("{}\n")
        started = self.replicas[0].ctl("rollout", "start", FLAG, "--force", "--reason", "story")
        assert started.returncode == 0, started.stderr

    def healthy(self):
        self.begin()
        self.start_load(300)
        begun = time.monotonic()
        self.wait(240, lambda: all(r.metric("sluice_rollout_stage") == 2 for r in self.replicas)
                  and "complete" in self.replicas[0].ctl("rollout", "status", FLAG).stdout, "healthy: complete")
        assert self.shares() == [99.0] * 3, self.shares()
        print(f"healthy   0 -> 99 % (1 % held back) on every replica in {time.monotonic() - begun:.1f} s", flush=True)
        self.stop_load()
        back = self.replicas[1].ctl("rollout", "rollback", FLAG, "--reason", "for the next part")
        assert back.returncode == 0, back.stderr
        self.wait(10, lambda: self.shares() == [0.0] * 3, "rolled back by hand")

    def fault(self, name):
        self.begin()
        self.start_load(300)
        self.wait(120, lambda: min(s or 0 for s in self.shares()) >= 50, f"{name}: 50 % before the fault")
        self.faults.write_text(FAULTS[name] + "\n")
        broken = time.time()
        self.wait(120, lambda: self.shares() == [0.0] * 3, f"{name}: 0 % everywhere")
        time.sleep(1)
        self.stop_load()
        time.sleep(0.5)
        seen = [request for r in self.replicas for request in r.requests_since(broken)]
        canary = [request for request in seen if request[1] == "ttft"]
        last = max((when for when, _, _ in canary), default=broken) - broken
        hurt = sum(failed for _, _, failed in canary) if name == "errors" else len(canary)
        history = self.replicas[0].ctl("rollout", "history", FLAG).stdout.splitlines()[-1]
        restarts = sum(r.restarts for r in self.replicas)
        print(f"{name:<9} last canary request {last:.1f} s after the fault, {hurt} of {len(canary)} canary requests "
              f"hurt{f', {restarts} crashes' if name == 'crashes' else ''}\n          {history[24:]}", flush=True)
        self.faults.write_text("{}\n")
        expected = {"errors": "error_rate|failures in a row", "latency": "ttft_p95|latency_p95",
                    "leak": "memory_growth", "crashes": "crash_rate"}[name]
        assert re.search(expected, history), f"{name} was rolled back for something else: {history}"

    def close(self):
        self.stop_load()
        for replica in self.replicas:
            replica.stop()
        if self.etcd:
            self.etcd.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--store", choices=["file", "etcd"], default="file")
    parser.add_argument("--rate", type=float, default=540, help="requests a second, over all replicas")
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and reports")
    parser.add_argument("part", nargs="*", default=["healthy", *FAULTS])
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice_rollout_"))
    print(f"3 replicas, synthetic backend, {options.rate:g} requests/s, store: {options.store}", flush=True)
    story = None
    try:
        story = Story(options, folder)
        for part in options.part:
            story.healthy() if part == "healthy" else story.fault(part)
    except BaseException:
        print(f"logs: {folder}", file=sys.stderr)
        options.keep = True
        raise
    finally:
        if story:
            story.close()
        if not options.keep:
            subprocess.run(["rm", "-r", str(folder)], check=False)


if __name__ == "__main__":
    main()
