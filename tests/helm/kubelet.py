"""Plays the parts of Kubernetes that touch a process: mounts, probes, the end of a pod. Nothing here knows Sluice."""
import itertools
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chart import documents, named, pod_of
from server import SYNTHETIC, free_port


def write_config_map(folder, data, counter=itertools.count()):
    """As the kubelet does: files are links into ..data, and ..data is swapped for another folder at once."""
    fresh = folder / f"..{next(counter)}"
    fresh.mkdir(parents=True)
    for name, text in data.items():
        (fresh / name).write_text(text)
    os.symlink(fresh.name, folder / "..data_tmp")
    os.rename(folder / "..data_tmp", folder / "..data")
    for name in data:
        if not (folder / name).is_symlink():
            os.symlink(f"..data/{name}", folder / name)
    for old in folder.glob("..[0-9]*"):
        if old != fresh:
            for path in old.iterdir():
                path.unlink()
            old.rmdir()


class Pod:
    """The container "sluice" of a rendered Deployment as a process: its ConfigMaps, args, env, probes and grace.

    Three things differ from a node: /etc/sluice lies in a temporary folder, ports are free ones of this machine, and
    the model is the synthetic one.
    """

    def __init__(self, binaries, rendered, name="sluice-0", model=SYNTHETIC, edit=lambda text: text):
        objects = documents(rendered)
        self.deployment = named(objects, "Deployment")
        self.spec = pod_of(self.deployment)
        self.container = next(each for each in self.spec["containers"] if each["name"] == "sluice")
        self.maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
        self.port, self.metrics_port = free_port(), free_port()
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}

        def local(text):
            text = text.replace(f"0.0.0.0:{ports['grpc']}", f"127.0.0.1:{self.port}")
            text = text.replace(f"0.0.0.0:{ports['metrics']}", f"127.0.0.1:{self.metrics_port}")
            return re.sub(r"path: /models/\S+", f"path: {model}", edit(text)).replace("/etc/sluice", str(self.folder))
        self.local = local
        for mount in self.container["volumeMounts"]:
            volume = next(each for each in self.spec["volumes"] if each["name"] == mount["name"])
            if "configMap" in volume:
                self.write(volume["name"], self.maps[volume["configMap"]["name"]])
        env = {each["name"]: each.get("value", name) for each in self.container["env"]}
        self.log = open(self.folder / "log", "w+")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [str(binaries / "sluice-server"), *[self.local(word) for word in self.container["args"]]], env=env,
            stdout=self.log, stderr=self.log)
        self.address = f"127.0.0.1:{self.port}"
        self.channel = grpc.insecure_channel(self.address)

    def write(self, volume, data):
        """The ConfigMap behind a volume has changed."""
        write_config_map(self.folder / volume, {key: self.local(text) for key, text in data.items()})

    def probe(self, kind):
        """Asks once, as the rendered probe says."""
        rendered = self.container[f"{kind}Probe"]
        assert rendered["grpc"]["port"] == self.container["ports"][0]["containerPort"]
        try:
            answer = health_pb2_grpc.HealthStub(self.channel).Check(
                health_pb2.HealthCheckRequest(service=rendered["grpc"]["service"]), timeout=rendered["timeoutSeconds"])
            return answer.status == health_pb2.HealthCheckResponse.SERVING
        except grpc.RpcError:
            return False

    def wait_until(self, kind, wanted=True, seconds=30):
        end = time.monotonic() + seconds
        while self.probe(kind) != wanted:
            assert time.monotonic() < end, f"{kind} is not {wanted}\n{self.text()}"
            assert self.process.poll() is None, self.text()
            time.sleep(0.02)

    def end(self):
        """The pod is deleted: preStop, SIGTERM, and SIGKILL when the grace, which began with preStop, is over."""
        deadline = time.monotonic() + self.spec["terminationGracePeriodSeconds"]
        time.sleep(self.container["lifecycle"]["preStop"]["sleep"]["seconds"])
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "killed"

    def text(self):
        return (self.folder / "log").read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.temporary.cleanup()
