#!/usr/bin/env python3
"""How long the old behaviour is still seen after each way to turn a feature off, with two real servers under load.

Usage: kill_switch.py BIN_DIR [--rate N] [--rounds N]
Synthetic backend; the two share a state folder, and only the first is told what goes over the API. For each way prints,
over all rounds and both servers, the longest time from the act to the last request that finished the old way (the
servers' own request lines; the act includes starting the tool and its answer). Fails when one took more than a second.
"""
import argparse
import datetime
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 1.0  # seconds
QUIET = 0.3  # seconds without the old behaviour until it counts as gone


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def replace(path, text):
    """In one step, as editors and tools of operators do."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


class Replica:
    """A server, and soon a steady load on it."""

    def __init__(self, options, folder, number):
        self.options, self.folder = options, folder
        self.address, self.metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.log, self.at, self.seen = folder / f"server-{number}.log", 0, []
        self.log.touch()
        self.start()

    def bench(self, seconds, out):
        return subprocess.Popen(
            [self.options.bin / "sluice-bench", "load", f"grpc://{self.address}", "--rate", f"{self.options.rate:g}",
             "--arrivals", "constant", "--duration", f"{seconds}", "--warmup", "0", "--prompt-tokens", "16",
             "--output-tokens", "2", "--model", "m", "--out", str(self.folder / out)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, **env):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.options.bin / "sluice-server", "--config", self.folder / "runtime.yaml", "--flags",
                 self.folder / "map/flags.yaml", "--model", "m=synthetic:", "--grpc-address", self.address,
                 "--metrics-address", self.metrics], stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **env})
        ready = self.ctl("status", "--wait", "30")
        assert ready.returncode == 0, ready.stderr

    def ctl(self, *words):
        return subprocess.run([self.options.bin / "sluicectl", *words, "--server", self.address], capture_output=True,
                              text=True, timeout=60, check=False)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def requests(self):
        """(time, pipeline) of every request so far."""
        with open(self.log, "rb") as log:
            log.seek(self.at)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self.at += whole
        for line in text[:whole].decode(errors="replace").splitlines():
            found = re.search(r" request request_id=.* pipeline=(\w+) ", line)
            if found:
                when = datetime.datetime.fromisoformat(line[:23]).replace(tzinfo=datetime.timezone.utc).timestamp()
                self.seen.append((when, found[1]))
        return self.seen

    def settled(self, since, pipeline):
        """For QUIET, all after `since`, every request was served so, and there were some."""
        now = time.time()
        last = [p for when, p in self.requests() if when >= now - QUIET]
        return now - since >= QUIET and len(last) >= self.options.rate * QUIET / 4 and set(last) == {pipeline}

    def last(self, since, pipeline):
        """Seconds from `since` to the last request served so; 0 without any."""
        return max((when - since for when, p in self.requests() if when >= since and p == pipeline), default=0)


class Story:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.shipped = (ROOT / "config/feature-flags.yaml").read_text()
        (folder / "runtime.yaml").write_text(f"state_folder: {folder}/state\n")
        # As a ConfigMap is mounted: map/flags.yaml -> ..data/flags.yaml, ..data -> ..1
        (folder / "map/..1").mkdir(parents=True)
        (folder / "map/..1/flags.yaml").write_text(self.shipped)
        (folder / "map/..data").symlink_to("..1")
        (folder / "map/flags.yaml").symlink_to("..data/flags.yaml")
        self.version = 1
        self.replicas, self.loads = [], []

    def __enter__(self):
        for number in range(2):
            replica = Replica(self.options, self.folder, number)
            self.replicas.append(replica)
            self.loads.append(replica.bench(600, f"load-{number}"))
        return self

    def __exit__(self, *_):
        for process in self.loads + [replica.process for replica in self.replicas]:
            process.kill()
            process.wait()

    def wait(self, since, pipeline, what, replicas=None):
        end = time.monotonic() + 30
        while not all([replica.settled(since, pipeline) for replica in replicas or self.replicas]):
            assert time.monotonic() < end, f"{what}: not everybody is served by {pipeline}"
            time.sleep(0.02)

    def begin(self, what):
        """Everybody is served by ttft. The time; what was before it is forgotten."""
        self.wait(0, "ttft", f"before {what}")
        for replica in self.replicas:
            replica.seen.clear()
        return time.time()

    def ctl(self, *words):
        done = self.replicas[0].ctl("flags", *words)
        assert done.returncode == 0, done.stderr

    def edit(self, text):
        replace(self.folder / f"map/..{self.version}/flags.yaml", text)

    def swap(self, text):
        """What the kubelet does."""
        self.version += 1
        made = self.folder / f"map/..{self.version}"
        made.mkdir()
        (made / "flags.yaml").write_text(text)
        (self.folder / "map/..new").symlink_to(made.name)
        (self.folder / "map/..new").rename(self.folder / "map/..data")

    def ways(self):
        """Name, how to turn ttft off, how to turn it on."""
        off = re.sub(r"(?ms)^(ttft_pipeline:.*?rollout_percentage:) *\S+", r"\1 0", self.shipped)
        killed = self.shipped.replace("kill_switch: false", "kill_switch: true")
        assert off != self.shipped and killed != self.shipped
        why = ("--reason", "test")
        return [
            ("file: rollout_percentage 0", lambda: self.edit(off), lambda: self.edit(self.shipped)),
            ("file: kill_switch", lambda: self.edit(killed), lambda: self.edit(self.shipped)),
            ("ConfigMap swapped: kill_switch", lambda: self.swap(killed), lambda: self.swap(self.shipped)),
            ("sluicectl flags set --off", lambda: self.ctl("set", "ttft_pipeline", "--off", *why),
             lambda: self.ctl("set", "ttft_pipeline", "--clear", *why)),
            ("sluicectl flags kill", lambda: self.ctl("kill", *why), lambda: self.ctl("kill", "--end", *why)),
            ("sluicectl flags kill --baseline", lambda: self.ctl("kill", "--baseline", *why),
             lambda: self.ctl("kill", "--baseline", "--end", *why)),
        ]

    def measure(self, name, turn_off, turn_on):
        took = [0.0] * len(self.replicas)
        for _ in range(self.options.rounds):
            begin = self.begin(name)
            turn_off()
            self.wait(begin, "baseline", name)
            took = [max(t, replica.last(begin, "ttft")) for t, replica in zip(took, self.replicas)]
            turn_on()
        print(f"{name:<34} {1000 * took[0]:6.0f} ms, the other server {1000 * took[1]:6.0f} ms", flush=True)
        assert max(took) <= LIMIT, f"{name}: the old behaviour was seen for {max(took):.2f} s"

    def environment(self):
        """A process reads PHASE5_* when it starts: the time is that of a restart, and nothing is served the old way."""
        replica = self.replicas[0]
        for variable, value in (("PHASE5_ENABLED", "false"), ("PHASE5_TTFT_ENABLED", "false"),
                                ("PHASE5_ROLLOUT_PERCENT", "0")):
            begin = self.begin(variable)
            replica.end()
            ended = time.time()
            replica.start(**{variable: value})
            ready = time.time()
            self.wait(ready, "baseline", variable, [replica])
            old = replica.last(begin, "ttft")
            print(f"{f'restart with {variable}={value}':<34} {1000 * old:6.0f} ms; drained after "
                  f"{1000 * (ended - begin):.0f} ms, ready again {1000 * (ready - ended):.0f} ms later", flush=True)
            assert old <= LIMIT and replica.last(ended, "ttft") == 0
            replica.end()
            replica.start()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--rate", type=float, default=200, help="requests a second at each server")
    parser.add_argument("--rounds", type=int, default=2, help="of each way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice_kill_switch_") as folder, \
            Story(options, pathlib.Path(folder)) as story:
        print(f"the last request served the old way, longest of {options.rounds}:")
        for way in story.ways():
            story.measure(*way)
        story.environment()


if __name__ == "__main__":
    main()
