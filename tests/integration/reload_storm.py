#!/usr/bin/env python3
"""What callers feel when flags are written and SIGHUP is sent 100 times a second: ten seconds against ten quiet ones.

Usage: reload_storm.py BIN_DIR [--rate N] [--pairs N] [--seconds N]
A real server, synthetic backend, turns in changing order. The server looks at most 20 times a second for each of the
two ways (flags alone after a write; flags, policies and rollouts after SIGHUP). In the quiet turns the same is written
to a file that nobody watches. Prints the latency of requests on the client's clock (from when they were due) and the
server's CPU for each turn, then the medians of the pairs' differences. Judges failures and how often
the server looked; latencies it only prints.
"""
import argparse
import json
import os
import pathlib
import signal
import statistics
import tempfile
import time
import urllib.request

from kill_switch import ROOT, Replica, replace


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Storm:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        (folder / "runtime.yaml").write_text("{}\n")
        (folder / "map").mkdir()
        self.shipped = (ROOT / "config/feature-flags.yaml").read_text()
        (folder / "map/flags.yaml").write_text(self.shipped)
        self.replica = Replica(options, folder, 0)

    def epoch(self):
        text = urllib.request.urlopen(f"http://{self.replica.metrics}/metrics", timeout=10).read().decode()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("sluice_flag_epoch "))

    def turn(self, name, number, stormy):
        out = f"{name}-{number}"
        load = self.replica.bench(self.options.seconds, out)
        epoch, cpu, begin = self.epoch(), cpu_seconds(self.replica.process.pid), time.monotonic()
        target = self.folder / ("map/flags.yaml" if stormy else "unwatched.yaml")
        for i in range(self.options.seconds * 100):
            time.sleep(max(0, begin + i / 100 - time.monotonic()))
            replace(target, self.shipped.replace("rollout_percentage: 100", f"rollout_percentage: {i % 2 * 50 + 50}"))
            if stormy:
                self.replica.process.send_signal(signal.SIGHUP)
        cpu = cpu_seconds(self.replica.process.pid) - cpu
        assert load.wait(120) in (0, 2), f"sluice-bench ended with {load.returncode}"
        report = json.loads((self.folder / out / "report.json").read_text())
        cell = report["cells"][0]
        assert cell["failed"] == 0, cell["error_examples"]
        latency = {p: cell["latencies"]["e2e_ms"][p]["value"] for p in ("p50", "p99")}
        epochs = self.epoch() - epoch
        print(f"{name:<6} {epochs:5} epochs, {cell['requests']} requests, p50 {latency['p50']:.2f} ms, "
              f"p99 {latency['p99']:.2f} ms, server {cpu:.2f} s CPU"
              f"{'; sluice-bench calls it invalid' if report['invalid'] else ''}", flush=True)
        # 20 looks a second for each way, and one at once.
        assert self.options.seconds < epochs <= self.options.seconds * 40 + 2 if stormy else epochs == 0, epochs
        return {**latency, "cpu": cpu}

    def run(self):
        pairs = []
        for number in range(self.options.pairs):
            turns = {stormy: self.turn("storm" if stormy else "quiet", number, stormy)
                     for stormy in ((False, True) if number % 2 == 0 else (True, False))}
            pairs.append(turns)
        for what in ("p50", "p99", "cpu"):
            quiet, difference = (statistics.median(v) for v in (
                [p[False][what] for p in pairs], [p[True][what] - p[False][what] for p in pairs]))
            print(f"{what}: quiet {quiet:.2f} {'s' if what == 'cpu' else 'ms'}, in the storm {difference:+.2f} more")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice_reload_storm_") as folder:
        storm = Storm(options, pathlib.Path(folder))
        try:
            storm.run()
        finally:
            storm.replica.process.kill()
            storm.replica.process.wait()


if __name__ == "__main__":
    main()
