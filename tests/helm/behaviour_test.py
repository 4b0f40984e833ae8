#!/usr/bin/env python3
"""The real server with the ConfigMaps, args and env of the rendered chart, as Kubernetes would treat it.

usage: behaviour_test.py BIN_DIR

What is rendered comes from golden/, which template_test.py keeps equal to the chart, so that helm is not needed here.
"""
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

import grpc

import chart
from chart import GOLDEN, documents, named
from kubelet import Pod
from server import free_port

BIN = pathlib.Path(sys.argv.pop(1)).resolve()
RENDERED = (GOLDEN / "behaviour-values.golden").read_text()
PROTOS = tempfile.TemporaryDirectory()
subprocess.run(["protoc", f"-I{chart.ROOT}/protos", f"--python_out={PROTOS.name}", "sluice/v1/inference.proto"],
               check=True)
sys.path.insert(0, PROTOS.name)
from sluice.v1 import inference_pb2 as pb  # noqa: E402  pylint: disable=wrong-import-position,no-name-in-module


def generate(channel, user, tokens, timeout=60):
    """(output tokens, pipeline) of one stream that came to its end; raises grpc.RpcError."""
    call = channel.unary_stream("/sluice.v1.InferenceService/Generate",
                                request_serializer=pb.GenerateRequest.SerializeToString,
                                response_deserializer=pb.GenerateResponse.FromString)
    finish = None
    for message in call(pb.GenerateRequest(prompt=f"for {user}", user=user, max_tokens=tokens, ignore_eos=True),
                        timeout=timeout):
        if message.HasField("finish"):
            finish = message.finish
    return finish.usage.output_tokens, finish.pipeline


class Load:
    """Threads that call again and again, each over a connection of its own, until the `with` ends."""

    def __init__(self, address, threads=8, tokens=20):
        self.address, self.tokens = address, tokens
        self.done, self.failed, self.stop, self.changed = [], [], threading.Event(), threading.Condition()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(threads)]

    def run(self, number):
        with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1),
                                                          ("grpc.enable_retries", 0)]) as channel:
            count = 0
            while not self.stop.is_set():
                count += 1
                try:
                    result = generate(channel, f"user-{number}-{count}", self.tokens)
                    with self.changed:
                        self.done.append(result)
                        self.changed.notify_all()
                except grpc.RpcError as error:
                    self.failed.append(f"{error.code()}: {error.details()}")

    def wait_for(self, more, seconds=60):
        """Until so many further calls have succeeded; what they were."""
        with self.changed:
            begin = len(self.done)
            assert self.changed.wait_for(lambda: len(self.done) >= begin + more or self.failed, seconds), "stuck"
            return self.done[begin:]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def gauge(pod, series):
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.metrics_port}/metrics", timeout=10) as answer:
        found = re.search(rf"(?m)^{re.escape(series)} (\S+)$", answer.read().decode())
    return float(found[1]) if found else None


class Flags(unittest.TestCase):
    def test_a_swapped_config_map_changes_the_percentage_under_load(self):
        series = 'sluice_flag_rollout_ratio{flag="ttft_pipeline"}'
        with Pod(BIN, RENDERED) as pod:
            pod.wait_until("startup")
            self.assertEqual(gauge(pod, series), 0)
            flags = pod.maps["sluice-flags"]["feature-flags.yaml"]
            with Load(pod.address) as load:
                self.assertEqual({pipeline for _, pipeline in load.wait_for(50)}, {"baseline"})
                for percent in (100, 50, 0):
                    pod.write("flags", {"feature-flags.yaml": at(flags, percent)})
                    self.until(lambda: gauge(pod, series) == percent / 100)  # pylint: disable=cell-var-from-loop
                    load.wait_for(20)  # those that had begun before
                    seen = [pipeline for _, pipeline in load.wait_for(100)]
                    share = seen.count("ttft") / len(seen)
                    self.assertTrue(abs(share - percent / 100) <= (0.2 if percent == 50 else 0), (percent, share))
                pod.write("flags", {"feature-flags.yaml": at(flags, 101)})
                self.until(lambda: gauge(pod, 'sluice_flag_reloads_total{result="failed"}'))
                self.assertEqual({pipeline for _, pipeline in load.wait_for(50)}, {"baseline"})
            self.assertEqual(load.failed, [])
            self.assertEqual({tokens for tokens, _ in load.done}, {20})
            print(f"swap: {len(load.done)} requests, none failed")

    def until(self, condition, seconds=15):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "in vain")
            time.sleep(0.05)


def at(flags, percent):
    head, tail = flags.split("ttft_pipeline:")
    return head + "ttft_pipeline:" + re.sub(r"rollout_percentage: \d+", f"rollout_percentage: {percent}", tail, count=1)


class Ending(unittest.TestCase):
    def streams_that_end(self, edit=lambda text: text):
        """SIGTERM, as the rendered pod gets it, while 50 streams of about 5 s run; (complete streams, exit code)."""
        complete, started = [], threading.Barrier(51)

        def one(number):
            with grpc.insecure_channel(pod.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                grpc.channel_ready_future(channel).result(20)
                started.wait()
                try:
                    complete.append(generate(channel, f"user-{number}", 700)[0] == 700)
                except grpc.RpcError:
                    pass

        with Pod(BIN, RENDERED, edit=edit) as pod:
            pod.wait_until("readiness")
            self.assertTrue(pod.probe("liveness"))
            threads = [threading.Thread(target=one, args=(n,)) for n in range(50)]
            ended = []
            for thread in threads:
                thread.start()
            started.wait()
            Flags.until(self, lambda: gauge(pod, "sluice_qos_running") == 50)
            threads.append(threading.Thread(target=lambda: ended.append(pod.end())))
            threads[-1].start()
            if edit("") == "":
                pod.wait_until("readiness", wanted=False)
                self.assertTrue(pod.probe("liveness"), "a draining pod must not be restarted")
            for thread in threads:
                thread.join()
            return sum(complete), ended[0]

    def test_fifty_streams_outlive_sigterm_within_the_rendered_grace(self):
        self.assertEqual(self.streams_that_end(), (50, 0))

    def test_a_drain_that_is_too_short_loses_them(self):
        """So the test above can fail."""
        complete, code = self.streams_that_end(
            lambda text: text.replace("drain_grace_ms: 20000", "drain_grace_ms: 1000"))
        self.assertLess(complete, 50)
        self.assertEqual(code, 0)


class Balancer:
    """HAProxy speaks gRPC on both sides, as a Service or gateway would; endpoints are set through its socket."""

    def __init__(self, slots=4):
        self.folder = tempfile.TemporaryDirectory()
        self.port, self.socket = free_port(), f"{self.folder.name}/admin"
        servers = "".join(f"  server s{n} 127.0.0.1:1 proto h2 disabled\n" for n in range(slots))
        config = pathlib.Path(self.folder.name) / "haproxy.cfg"
        config.write_text(f"""
global
  stats socket {self.socket} level admin
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend grpc
  bind 127.0.0.1:{self.port} proto h2
  default_backend pods
backend pods
  balance roundrobin
  retry-on conn-failure empty-response
  option redispatch
{servers}""")
        self.process = subprocess.Popen([str(chart.HAPROXY), "-db", "-q", "-f", str(config)], env=chart.DEBIAN_ENV,
                                        stderr=subprocess.DEVNULL)  # each change of state is a warning
        Flags.until(unittest.TestCase(), lambda: pathlib.Path(self.socket).exists())

    def say(self, words):
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(self.socket)
            admin.sendall((words + "\n").encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def add(self, slot, pod, weight=100):
        self.say(f"set server pods/s{slot} addr 127.0.0.1 port {pod.port}")
        self.say(f"set server pods/s{slot} weight {weight}")
        self.say(f"set server pods/s{slot} state ready")

    def remove(self, slot):
        """No new requests; running ones go on."""
        self.say(f"set server pods/s{slot} state drain")

    def served(self):
        rows = [line.split(",") for line in self.say("show stat").splitlines() if line.startswith("pods,s")]
        return [int(row[7]) for row in rows]  # stot: requests

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def for_balancer(text):
    """As docs/kubernetes.md says: behind a proxy that balances by request, connections need not age. HAProxy 2.6 cuts a
    stream short now and then when the server closes an aged connection right behind the stream's last frame."""
    changed = text.replace("max_connection_age_ms: 3000", "max_connection_age_ms: 604800000")
    assert changed != text or "max_connection_age_ms" not in text
    return changed


class Upgrade(unittest.TestCase):
    def test_three_pods_are_replaced_under_load_without_a_failed_request(self):
        strategy = named(documents(RENDERED), "Deployment")["spec"]["strategy"]["rollingUpdate"]
        self.assertEqual(strategy, {"maxSurge": 1, "maxUnavailable": 0})
        pods = [Pod(BIN, RENDERED, f"old-{n}", edit=for_balancer) for n in range(3)]
        try:
            with Balancer() as balancer:
                for slot, pod in enumerate(pods):
                    pod.wait_until("startup")
                    balancer.add(slot, pod)
                with Load(f"127.0.0.1:{balancer.port}", threads=12, tokens=40) as load:
                    load.wait_for(50)
                    free = 3
                    for slot in range(3):
                        pods.append(Pod(BIN, RENDERED, f"new-{slot}", edit=for_balancer))
                        pods[-1].wait_until("readiness")
                        balancer.add(free, pods[-1])
                        load.wait_for(20)
                        balancer.remove(slot)  # as the endpoints controller does when the pod is deleted
                        self.assertEqual(pods[slot].end(), 0)
                        free = slot
                    load.wait_for(100)
                self.assertEqual(load.failed, [])
                self.assertEqual({tokens for tokens, _ in load.done}, {40})
                print(f"upgrade: {len(load.done)} requests, none failed")
        finally:
            for pod in pods:
                pod.__exit__()

    def test_a_route_splits_requests_by_the_rendered_weights(self):
        route = named(documents((GOLDEN / "full-values.golden").read_text()), "GRPCRoute")
        weights = [ref["weight"] for ref in route["spec"]["rules"][0]["backendRefs"]]
        self.assertEqual(weights, [75, 25])
        with (Pod(BIN, RENDERED, "stable", edit=for_balancer) as stable,
              Pod(BIN, RENDERED, "canary", edit=for_balancer) as canary, Balancer() as balancer):
            for slot, pod in enumerate((stable, canary)):
                pod.wait_until("startup")
                balancer.add(slot, pod, weights[slot])
            with Load(f"127.0.0.1:{balancer.port}") as load:
                load.wait_for(400)
            self.assertEqual(load.failed, [])
            served = balancer.served()
            self.assertAlmostEqual(served[1] / sum(served), 0.25, delta=0.03)


class Tls(unittest.TestCase):
    def test_exec_probes_of_a_server_with_client_certificates(self):
        deployment = named(documents((GOLDEN / "outside-values.golden").read_text()), "Deployment")
        container = chart.pod_of(deployment)["containers"][0]
        with tempfile.TemporaryDirectory() as folder:
            for name in ("tls", "probe", "client-ca"):
                pathlib.Path(folder, name).mkdir()
            certificates(pathlib.Path(folder))
            tls = (f"  tls:\n    certificate_file: {folder}/tls/tls.crt\n    key_file: {folder}/tls/tls.key\n"
                   f"    client_ca_file: {folder}/client-ca/ca.crt\n")
            with Pod(BIN, RENDERED, edit=lambda text: text.replace("server:\n", "server:\n" + tls)) as pod:
                commands = {kind: [word.replace("/etc/sluice", folder).replace(":8001", f":{pod.port}")
                                   for word in container[f"{kind}Probe"]["exec"]["command"]]
                            for kind in ("startup", "liveness", "readiness")}
                Flags.until(self, lambda: self.ask(commands["startup"]) == 0)
                self.assertEqual([self.ask(commands[kind]) for kind in ("liveness", "readiness")], [0, 0])
                without = [word for word in commands["liveness"] if "/probe/" not in word]
                self.assertNotEqual(self.ask(without), 0, "client certificates are not asked for")
                wrong = [word.replace("llm.example.com", "other.example.com") for word in commands["liveness"]]
                self.assertNotEqual(self.ask(wrong), 0, "the name is not checked")

    def ask(self, command):
        self.assertEqual(command[0], "sluicectl")
        return chart.run(BIN / command[0], *command[1:], "--timeout=2").returncode


def certificates(folder):
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "tls/ca.crt", "-days", "2",
            "-subj", "/CN=ca")
    (folder / "client-ca/ca.crt").write_text((folder / "tls/ca.crt").read_text())
    (folder / "names").write_text("subjectAltName=DNS:llm.example.com")
    for name in ("tls", "probe"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}/tls.key", "-out", "csr",
                "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", "csr", "-CA", "tls/ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "names", "-out", f"{name}/tls.crt")


if __name__ == "__main__":
    unittest.main()
