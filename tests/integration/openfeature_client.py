#!/usr/bin/env python3
"""OpenFeature's SDK and its flagd provider (rpc mode) against a Sluice server.

Usage: openfeature_client.py SERVER     (SERVER: the program flagd_test_server)
Needs from PyPI: openfeature-sdk, openfeature-provider-flagd. Exit code 0: all held.
"""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.flag_evaluation import Reason

TIMEOUT_S = 30


def flag(variants, default, targeting=None, **more):
    return {"state": "ENABLED", "variants": variants, "defaultVariant": default,
            **({"targeting": targeting} if targeting else {}), **more}


DOCUMENT = {"flags": {
    "bool": flag({"on": True, "off": False}, "on"),
    "string": flag({"hi": "hello", "bye": "good bye"}, "hi",
                   {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "bye", None]}),
    "int": flag({"ten": 10, "one": 1}, "ten"),
    "float": flag({"half": 0.5, "more": 1.5}, "half"),
    "object": flag({"a": {"list": [1, "b"], "deep": {"x": True}}}, "a"),
    "split": flag({"heads": "heads", "tails": "tails"}, "heads", {"fractional": [["heads", 50], ["tails", 50]]}),
    "no-default": flag({"on": True, "off": False}, None),
    "disabled": {**flag({"on": True, "off": False}, "on"), "state": "DISABLED"},
    "answers-nothing-known": flag({"on": True}, "on", {"cat": ["un", "known"]}),
}}


def check(condition, what):
    if not condition:
        raise AssertionError(what)
    print(f"ok: {what}", flush=True)


class Server:
    def __init__(self, program, flags, port=0):
        self.process = subprocess.Popen([program, f"127.0.0.1:{port}", flags], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.terminate()
        return self.process.wait(TIMEOUT_S)


class Events:
    """Counts what the provider tells, with what it told last."""

    def __init__(self):
        self.changed = threading.Condition()
        self.counts, self.flags = {}, set()
        for event in (ProviderEvent.PROVIDER_READY, ProviderEvent.PROVIDER_STALE,
                      ProviderEvent.PROVIDER_CONFIGURATION_CHANGED):
            api.add_handler(event, lambda details, event=event: self.take(event, details))

    def take(self, event, details):
        with self.changed:
            self.counts[event] = self.counts.get(event, 0) + 1
            self.flags |= set(details.flags_changed or [])
            self.changed.notify_all()

    def wait(self, event, count):
        with self.changed:
            return self.changed.wait_for(lambda: self.counts.get(event, 0) >= count, TIMEOUT_S)


def check_values(client):
    check(client.get_boolean_value("bool", False) is True, "a boolean")
    check(client.get_string_value("string", "x") == "hello", "a string")
    check(client.get_integer_value("int", 0) == 10, "an integer")
    check(client.get_float_value("float", 0.0) == 0.5, "a float")
    check(client.get_object_value("object", {}) == {"list": [1, "b"], "deep": {"x": True}}, "an object")
    check(client.get_string_details("int", "x").error_code.value == "TYPE_MISMATCH", "a wrong type is a type mismatch")
    check(client.get_boolean_details("gone", True).error_code.value == "FLAG_NOT_FOUND", "an unknown flag is not found")
    check(client.get_boolean_details("answers-nothing-known", True).error_code.value == "GENERAL",
          "targeting that names no variant is a general error")
    aimed = client.get_string_details("string", "x", EvaluationContext(attributes={"email": "a@example.com"}))
    check((aimed.value, aimed.reason, aimed.variant) == ("good bye", Reason.TARGETING_MATCH, "bye"), "targeting")
    for key, reason in (("no-default", Reason.DEFAULT), ("disabled", Reason.DISABLED)):
        for default in (True, False):
            details = client.get_boolean_details(key, default)
            check(details.value is default and details.reason == reason, f"{key} leaves it to the code ({default})")
    shares = [client.get_string_value("split", "x", EvaluationContext(f"user-{i}")) for i in range(200)]
    again = [client.get_string_value("split", "x", EvaluationContext(f"user-{i}")) for i in range(200)]
    check(shares == again and 60 < shares.count("heads") < 140 and set(shares) == {"heads", "tails"},
          f"fractional splits and sticks ({shares.count('heads')} of 200)")
    native = [client.get_boolean_value("native", False, EvaluationContext(f"user-{i}")) for i in range(200)]
    check(60 < sum(native) < 140, f"a native flag at 50 % answers too ({sum(native)} of 200)")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "flags.json"
        path.write_text(json.dumps(DOCUMENT))
        server = Server(program, path)
        events = Events()
        provider = FlagdProvider(host="127.0.0.1", port=server.port, resolver_type=ResolverType.RPC, deadline_ms=5000,
                                 retry_backoff_ms=100, retry_backoff_max_ms=500)
        try:
            api.set_provider_and_wait(provider)
            client = api.get_client()
            check(events.wait(ProviderEvent.PROVIDER_READY, 1), "provider_ready arrives")
            check_values(client)

            DOCUMENT["flags"]["int"]["defaultVariant"] = "one"
            path.write_text(json.dumps(DOCUMENT))
            server.reload()
            check(events.wait(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, 1), "a change of the file is an event")
            check(events.flags == {"int"}, f"which names what changed and nothing else: {events.flags}")
            check(client.get_integer_value("int", 0) == 1, "the new value holds, the cached one is gone")

            path.write_text("{")
            server.reload()
            check(client.get_string_value("string", "x") == "hello", "a broken file leaves everything as it was")

            port, started = server.port, time.monotonic()
            check(server.stop() == 0, "the server drains")
            check(time.monotonic() - started < 5, "without waiting for the open event stream")
            path.write_text(json.dumps(DOCUMENT))
            server = Server(program, path, port)
            deadline = time.monotonic() + TIMEOUT_S
            while client.get_float_details("float", 0.0).error_code and time.monotonic() < deadline:
                pass  # each call waits for the connection up to its deadline
            check(client.get_float_value("float", 0.0) == 0.5, "after a restart of the server values resolve again")
            check(events.wait(ProviderEvent.PROVIDER_READY, 2), "and provider_ready arrives again")
        finally:
            api.shutdown()
            server.process.kill()


if __name__ == "__main__":
    main()
