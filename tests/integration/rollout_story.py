#!/usr/bin/env python3
"""Three replicas of the real server binary, one state store, and a candidate that is healthy, then faulty in four ways.

Usage: rollout_story.py BIN_DIR [--store file|etcd] [--rate N] [PART ...]
Synthetic backend, or a real model at a rate that it bears. Parts: healthy errors latency leak crashes, and with
--store etcd leader (killed), paused (the store) and cutoff (one replica from the store); all of them without.
Prints for each fault how long it took from the fault to the last request that the candidate served, and how many
requests it hurt.
"""

import argparse
import datetime
import http.client
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
    holdback_percent: HOLDBACK
    stages:
      - {percent: 10, dwell_ms: 3000, min_samples: 50}
      - {percent: 50, dwell_ms: 3000, min_samples: 100}
      - {percent: 100, dwell_ms: 3000, min_samples: 100}
    analysis:
      allowed_error_percent: 5
      max_ttft_p95_ratio: 3          # the machine is shared: tails of a millisecond double by chance
      max_latency_p95_ratio: 3
      memory_span_ms: 10000
      min_memory_growth_bytes: GROWTH
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

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self.endpoint.split(":")[1]))) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Relay:
    """A TCP proxy that can be cut: the way of one replica to the store."""

    def __init__(self, target):
        host, port = target.split(":")
        self.target, self.is_cut, self.pairs = (host, int(port)), False, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            try:
                if self.is_cut:
                    raise ConnectionError
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            self.pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        sink.close()

    def cut(self):
        self.is_cut = True
        for pair in self.pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.pairs = []

    def mend(self):
        self.is_cut = False


class Replica:
    def __init__(self, options, folder, number, env):
        self.options, self.folder, self.number = options, folder, number
        self.faults = folder / f"faults-{number}.yaml"
        self.faults.write_text("{}\n")
        self.address, self.metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.log = folder / f"server-{number}.log"
        self.env = {**os.environ, **env, "SLUICE_REPLICA_ID": f"replica-{number}",
                    "SLUICE_FAULT_FILE": str(self.faults)}
        self.restarts = 0
        self.stopping = False
        self.start()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def start(self):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.options.bin / "sluice-server", "--config", self.folder / "runtime.yaml", "--rollouts",
                 self.folder / "rollouts.yaml", "--model", f"m={self.options.model}", "--grpc-address", self.address,
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
        except (OSError, http.client.HTTPException):
            return None  # it is being killed
        found = re.search(rf'^{name}{{flag="{FLAG}"[^}}]*}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else None

    def stale(self):
        text = urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5).read().decode()
        return float(re.search(r"^sluice_rollout_store_stale (\S+)$", text, re.MULTILINE)[1])

    def requests_since(self, start):
        """(time, pipeline, failed) of each request in the log from `start` on. What baseline mended failed, too."""
        out = []
        for line in open(self.log, encoding="utf-8", errors="replace"):
            if " request request_id=" not in line:
                continue
            when = datetime.datetime.strptime(line[:23], "%Y-%m-%dT%H:%M:%S.%f").replace(
                tzinfo=datetime.timezone.utc).timestamp()
            if when >= start:
                fell_back = "fallback=TTFT_FAILED" in line
                pipeline = "ttft" if fell_back else re.search(r"pipeline=(\S*)", line)[1]
                out.append((when, pipeline, fell_back or "FAULT_INJECTED" in line))
        return out

    def stop(self):
        self.stopping = True
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Story:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.replicas, self.load = [], []
        self.holdback = 1 if options.rate >= 300 else 5  # at low rates 1 % would be no comparison within minutes
        (folder / "rollouts.yaml").write_text(
            ROLLOUTS.replace("HOLDBACK", str(self.holdback))
            # Two requests of a real model hold more than a megabyte.
            .replace("GROWTH", "1000000" if options.model == "synthetic:" else "100000000"))
        (folder / "runtime.yaml").write_text((ROOT / "config/runtime.yaml").read_text())
        env = [{"SLUICE_STATE_FOLDER": str(folder / "state")} for _ in range(options.replicas)]
        self.etcd = None
        if options.store == "etcd":
            self.etcd = Etcd(folder)
            self.wait(30, self.etcd.answers, "etcd answers")
            self.relays = [Relay(self.etcd.endpoint) for _ in env]
            env = [{"SLUICE_STATE_STORE": "etcd", "SLUICE_STATE_ETCD_ENDPOINTS": f"http://{relay.endpoint}"}
                   for relay in self.relays]
        self.most = 100.0 - self.holdback
        self.replicas = [Replica(options, folder, i, each) for i, each in enumerate(env)]
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

    def inject(self, fault="{}", number=None):
        for replica in self.replicas if number is None else [self.replicas[number]]:
            replica.faults.write_text(fault + "\n")

    def shares(self):
        return [r.metric("sluice_rollout_percentage") for r in self.replicas]

    def begin(self):
        self.inject()
        started = self.replicas[0].ctl("rollout", "start", FLAG, "--force", "--reason", "story")
        assert started.returncode == 0, started.stderr

    def healthy(self):
        self.begin()
        self.start_load(300)
        begun = time.monotonic()
        self.wait(240, lambda: all(r.metric("sluice_rollout_stage") == 2 for r in self.replicas)
                  and "complete" in self.replicas[0].ctl("rollout", "status", FLAG).stdout, "healthy: complete")
        assert self.shares() == [self.most] * len(self.replicas), self.shares()
        print(f"healthy   0 -> {self.most:g} % ({self.holdback} % held back) on every replica in "
              f"{time.monotonic() - begun:.1f} s", flush=True)
        self.stop_load()
        back = self.replicas[-1].ctl("rollout", "rollback", FLAG, "--reason", "for the next part")
        assert back.returncode == 0, back.stderr
        self.wait(10, lambda: self.shares() == [0.0] * len(self.replicas), "rolled back by hand")

    def fault(self, name):
        self.begin()
        self.start_load(300)
        share = self.most if self.options.at_100 else 50
        self.wait(120, lambda: min(s or 0 for s in self.shares()) >= share, f"{name}: {share} % before the fault")
        self.inject(FAULTS[name])
        broken = time.time()
        self.wait(120, lambda: self.shares() == [0.0] * len(self.replicas), f"{name}: 0 % everywhere")
        time.sleep(1)
        self.stop_load()
        time.sleep(0.5)
        seen = [request for r in self.replicas for request in r.requests_since(broken)]
        canary = [request for request in seen if request[1] == "ttft"]
        last = max((when for when, _, _ in canary), default=broken) - broken
        hurt = sum(failed for _, _, failed in canary) if name == "errors" else len(canary)
        last_move = lambda: self.replicas[0].ctl("rollout", "history", FLAG).stdout.splitlines()[-1]
        self.wait(60, lambda: "rolled_back" in last_move(), f"{name}: a leader writes it down")
        history = last_move()
        restarts = sum(r.restarts for r in self.replicas)
        print(f"{name:<9} last canary request {last:.1f} s after the fault, {hurt} of {len(canary)} canary requests "
              f"hurt{f', {restarts} crashes' if name == 'crashes' else ''}\n          {history[24:]}", flush=True)
        self.inject()
        if self.options.keep:
            self.replicas[0].ctl("rollout", "evidence", FLAG, "--html", str(self.folder / f"{name}.html"))
        expected = {"errors": "error_rate|failures in a row", "latency": "ttft_p95|latency_p95",
                    "leak": "memory_growth", "crashes": "crash_rate"}[name]
        assert re.search(expected, history), f"{name} was rolled back for something else: {history}"

    def at_half(self, part):
        """Everybody serves 50 %, and the load goes on."""
        self.begin()
        self.start_load(300)
        self.wait(120, lambda: self.shares() == [50.0] * 3, f"{part}: 50 % everywhere")

    def watch_shares(self, seconds, allowed):
        """Samples every replica's percentage; each of them is one of `allowed`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for replica, share in zip(self.replicas, self.shares()):
                assert share is None or share in allowed, f"replica {replica.number} serves {share} %, not {allowed}"
            time.sleep(0.05)

    def back(self, number=0):
        self.stop_load()
        self.inject()
        done = self.replicas[number].ctl("rollout", "rollback", FLAG, "--reason", "for the next part")
        assert done.returncode == 0 or "rolled_back" in done.stderr, done.stderr
        self.wait(30, lambda: self.shares() == [0.0] * len(self.replicas), "rolled back by hand")

    def leader(self):
        """The leader is killed in mid-climb: somebody else goes on, and nobody is ahead of what was published."""
        self.begin()
        self.start_load(300)
        self.wait(60, lambda: self.shares() == [10.0] * 3, "leader: 10 % everywhere")
        number = int(re.search(r"leader: replica-(\d)", self.replicas[0].ctl("rollout").stdout)[1])
        victim, killed = self.replicas[number], time.monotonic()
        victim.process.kill()
        self.wait(120, lambda: min(s or 0 for s in self.shares()) >= 50, "leader: the climb goes on")
        took = time.monotonic() - killed
        after = re.search(r"leader: (\S+);", self.replicas[(number + 1) % 3].ctl("rollout").stdout)[1]
        print(f"leader    replica-{number} killed at 10 %; {after} leads, 50 % everywhere after {took:.1f} s",
              flush=True)
        self.back((number + 1) % 3)

    def paused(self):
        """The store does not answer: nobody rises, faults lower each replica all the same, and all agree later."""
        self.at_half("paused")
        self.etcd.process.send_signal(signal.SIGSTOP)
        try:
            self.watch_shares(12, {50.0})
            stale = [r.stale() for r in self.replicas]
            self.inject(FAULTS["errors"])
            broken = time.monotonic()
            self.wait(60, lambda: self.shares() == [0.0] * len(self.replicas), "paused: every replica lowers itself")
            took = time.monotonic() - broken
        finally:
            self.etcd.process.send_signal(signal.SIGCONT)
        self.watch_shares(8, {0.0})
        history = self.replicas[0].ctl("rollout", "history", FLAG).stdout.splitlines()[-1]
        print(f"paused    store stopped for 12 s at 50 %: stays, stale {stale}; then errors: 0 % everywhere without "
              f"the store after {took:.1f} s, and stays\n          {history[24:]}", flush=True)
        assert stale == [1.0] * 3 and "rolled_back" in history, (stale, history)
        self.back()

    def cutoff(self):
        """One replica without the store: it does not rise with the others, and what it finds reaches them later."""
        self.begin()
        self.start_load(300)
        self.wait(60, lambda: self.shares() == [10.0] * 3, "cutoff: 10 % everywhere")
        number = next(r.number for r in self.replicas
                      if f"leader: replica-{r.number};" not in self.replicas[0].ctl("rollout").stdout)
        others = [r for r in self.replicas if r.number != number]
        self.relays[number].cut()
        end, seen = time.monotonic() + 25, set()
        while time.monotonic() < end:
            seen.add(self.replicas[number].metric("sluice_rollout_percentage"))
            time.sleep(0.05)
        ahead = [r.metric("sluice_rollout_percentage") for r in others]
        assert seen <= {10.0, 0.0}, f"cut off at 10 % and served {seen}"
        self.inject(FAULTS["errors"], number)
        self.wait(60, lambda: self.replicas[number].metric("sluice_rollout_percentage") == 0, "cutoff: lowers itself")
        assert [r.metric("sluice_rollout_percentage") for r in others] == ahead
        mended = time.monotonic()
        self.relays[number].mend()
        self.wait(60, lambda: self.shares() == [0.0] * len(self.replicas), "cutoff: its finding lowers all")
        print(f"cutoff    replica-{number} cut off at 10 % served {sorted(seen)} % for 25 s while the others "
              f"were at {ahead}; errors there: 0 % there at once, everywhere "
              f"{time.monotonic() - mended:.1f} s after the way was mended",
              flush=True)
        self.back()

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
    parser.add_argument("--model", default="synthetic:", help="or a GGUF file")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--at-100", action="store_true", help="faults begin when the candidate serves all it may")
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs, reports and pages of evidence")
    parser.add_argument("part", nargs="*")
    options = parser.parse_intermixed_args()
    store_parts = ["leader", "paused", "cutoff"]
    parts = options.part or ["healthy", *FAULTS, *(store_parts if options.store == "etcd" else [])]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice_rollout_"))
    print(f"{options.replicas} replicas, model {pathlib.Path(options.model).name}, {options.rate:g} requests/s, "
          f"store: {options.store}", flush=True)
    story = None
    try:
        story = Story(options, folder)
        for part in parts:
            story.fault(part) if part in FAULTS else getattr(story, part)()
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
