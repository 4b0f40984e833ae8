"""Starts the real sluice-server, and talks to it as clients do."""
import pathlib
import socket
import subprocess
import tempfile
import urllib.request

SYNTHETIC = "synthetic:step_us=5000,decode_row_us=20"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """sluice-server with the synthetic model on free ports; killed at the end of the `with` when it still runs."""

    def __init__(self, binaries, arguments=None, env=None, model=SYNTHETIC, port=None):
        self.binaries, self.port, self.metrics_port = pathlib.Path(binaries), port or free_port(), free_port()
        self.state = tempfile.TemporaryDirectory()
        pathlib.Path(self.state.name).chmod(0o777)  # the server may run as another user
        self.address = f"127.0.0.1:{self.port}"
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        root = pathlib.Path(__file__).resolve().parents[2]
        if arguments is None:
            runtime = pathlib.Path(self.state.name) / "runtime.yaml"
            runtime.write_text(f"state_folder: {self.state.name}/state\n")
            arguments = ["--config", runtime, "--flags", root / "config/feature-flags.yaml", "--qos",
                         root / "config/qos-policies.yaml", "--rollouts", root / "config/rollouts.yaml"]
        command = [self.binaries / "sluice-server", *arguments, "--model", f"default={model}", "--grpc-address",
                   self.address, "--metrics-address", f"127.0.0.1:{self.metrics_port}"]
        self.process = subprocess.Popen([str(word) for word in command], stdout=self.log, stderr=self.log, env=env)

    def __enter__(self):
        ready = self.ctl("status", "--wait", "60")
        assert ready.returncode == 0, ready.stderr + self.text()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.state.cleanup()

    def ctl(self, *words):
        return subprocess.run([str(self.binaries / "sluicectl"), words[0], "--server", self.address, *words[1:]],
                              capture_output=True, text=True, timeout=90, check=False)

    def generate(self, prompt):
        done = self.ctl("generate", prompt, "--max-tokens", "4")
        assert done.returncode == 0, done.stderr

    def fail(self, model):
        assert self.ctl("generate", "x", "--model", model).returncode == 1

    def text(self):
        return pathlib.Path(self.log.name).read_text()

    def scrape(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            return response.read().decode()
