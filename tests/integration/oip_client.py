#!/usr/bin/env python3
"""The Open Inference Protocol as its public clients see it: tritonclient and grpc.health.v1 against a running server.

Usage: oip_client.py HOST:PORT [MODEL]     (MODEL: default the first one that is ready)
Needs from PyPI: tritonclient[grpc], grpcio-health-checking. Changes nothing on the server; exit code 0: all held.
"""

import queue
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

PROMPT = "The capital of France is"
TOKENS = 8
TIMEOUT_S = 60


def check(condition, what):
    if not condition:
        raise AssertionError(what)
    print(f"ok: {what}", flush=True)


def tensor(name, datatype, values, numpy_type):
    result = triton.InferInput(name, [len(values)], datatype)
    result.set_data_from_numpy(np.array(values, dtype=numpy_type))
    return result


def text(prompt):
    return tensor("text_input", "BYTES", [prompt.encode()], np.object_)


def greedy(prompt, max_tokens=TOKENS):
    return [
        text(prompt),
        tensor("max_tokens", "INT32", [max_tokens], np.int32),
        tensor("temperature", "FP32", [0.0], np.float32),
        tensor("ignore_eos", "BOOL", [True], np.bool_),
    ]


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def output_text(result):
    return result.as_numpy("text_output")[0].decode()


def parameter(result, name):
    value = result.get_response().parameters[name]
    return getattr(value, value.WhichOneof("parameter_choice"))


class Stream:
    """A ModelStreamInfer stream whose answers are taken one at a time, errors included."""

    def __init__(self, address):
        self.client = triton.InferenceServerClient(address)
        self.answers = queue.Queue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)), stream_timeout=TIMEOUT_S)

    def send(self, model, inputs, request_id, **options):
        self.client.async_stream_infer(model, inputs, request_id=request_id, **options)

    def until_final(self, request_ids):
        """Answers by id until each of `request_ids` had its final one; errors end the test."""
        answers = {request_id: [] for request_id in request_ids}
        left = set(request_ids)
        while left:
            result, error = self.answers.get(timeout=TIMEOUT_S)
            if error is not None:
                raise AssertionError(f"unexpected error in the stream: {error}")
            request_id = result.get_response().id
            answers[request_id].append(result)
            if parameter(result, "triton_final_response"):
                left.remove(request_id)
        return answers

    def error(self):
        result, error = self.answers.get(timeout=TIMEOUT_S)
        check(result is None and error is not None, f"an error comes in the stream: {error}")
        return error.message()

    def close(self, cancel_requests=False):
        self.client.stop_stream(cancel_requests=cancel_requests)
        self.client.close()


def refused(call, code, *words):
    try:
        call()
    except InferenceServerException as error:
        said = f"{error.status()} {error.message()}"
        check(code in said and all(word in said for word in words), f"refused: {said}")
        return
    raise AssertionError(f"not refused, wanted {code}")


def check_health(address):
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "liveness", "readiness"):
            status = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S).status
            check(status == health_pb2.HealthCheckResponse.SERVING, f"health service '{service}' is SERVING")


def check_metadata(client, model):
    check(client.is_server_live() and client.is_server_ready(), "server is live and ready")
    server = client.get_server_metadata()
    check(server.name == "sluice" and "schedule_policy" in server.extensions, f"server metadata: {server.version}")
    check(client.is_model_ready(model) and client.is_model_ready(model, "1"), f"{model} is ready")
    check(not client.is_model_ready("no-such-model"), "an unknown model is not ready")
    metadata = client.get_model_metadata(model)
    check({"text_input", "sampling_parameters"} <= {t.name for t in metadata.inputs}, "inputs in the metadata")
    check({"text_output", "token_ids", "finish_reason"} <= {t.name for t in metadata.outputs}, "outputs too")
    config = client.get_model_config(model).config
    check(config.model_transaction_policy.decoupled and config.max_batch_size == 0, "model config: decoupled")
    refused(lambda: client.get_model_metadata("no-such-model"), "NOT_FOUND", model)
    refused(lambda: client.get_model_metadata(model, "2"), "NOT_FOUND", "1")


def check_infer(client, model):
    before = client.get_inference_statistics(model).model_stats[0].inference_count
    whole = client.infer(model, greedy(PROMPT), request_id="a")
    check(whole.get_response().id == "a", "the response carries the request's id")
    check(output_text(whole).startswith(PROMPT), f"text_output repeats the input: {output_text(whole)!r}")
    bare = client.infer(
        model,
        greedy(PROMPT) + [tensor("exclude_input_in_output", "BOOL", [True], np.bool_)],
        outputs=outputs("text_output", "token_ids", "finish_reason"),
    )
    check(PROMPT + output_text(bare) == output_text(whole), "and does not when told to exclude it")
    check(len(bare.as_numpy("token_ids")) == TOKENS, f"{TOKENS} token ids")
    check(bare.as_numpy("finish_reason")[0] == b"length", "finish_reason is length")
    check(parameter(bare, "output_tokens") == TOKENS and parameter(bare, "prompt_tokens") > 0, "usage is reported")
    sampling = '{"temperature": "0", "max_tokens": %d, "ignore_eos": true}' % TOKENS
    json_input = tensor("sampling_parameters", "BYTES", [sampling.encode()], np.object_)
    by_json = client.infer(model, [text(PROMPT), json_input])
    check(output_text(by_json) == output_text(whole), "sampling_parameters say the same as tensors")
    by_parameter = client.infer(
        model,
        [text(PROMPT)],
        parameters={"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True, "user": "ann"},
        priority=2,
        timeout=TIMEOUT_S * 1_000_000,
        sequence_id="chat-1",
    )
    check(output_text(by_parameter) == output_text(whole), "and so do parameters")
    after = client.get_inference_statistics(model).model_stats[0]
    check(after.inference_count >= before + 4, f"statistics count: {before} -> {after.inference_count}")
    check(after.inference_stats.success.ns > 0, "and time")
    return output_text(bare)


def check_refusals(client, model):
    def infer_refused(code, word, inputs=None, name=model, **options):
        refused(lambda: client.infer(name, inputs or greedy(PROMPT), **options), code, word)

    infer_refused("NOT_FOUND", model, name="no-such-model")
    infer_refused("INVALID_ARGUMENT", "text_input", [tensor("prompt", "BYTES", [b"x"], np.object_)])
    infer_refused("INVALID_ARGUMENT", "BYTES", [tensor("text_input", "INT32", [1], np.int32)])
    infer_refused("INVALID_ARGUMENT", "text_output", outputs=outputs("logits"))
    infer_refused("INVALID_ARGUMENT", "top_p", parameters={"top_p": 2.0})
    infer_refused("INVALID_ARGUMENT", "ModelStreamInfer", parameters={"stream": True})
    infer_refused("INVALID_ARGUMENT", "max_tokens", greedy(PROMPT, 10_000_000))
    infer_refused("DEADLINE_EXCEEDED", "", timeout=1)


def check_embedding(client, model):
    if "embedding" not in {t.name for t in client.get_model_metadata(model).outputs}:
        print("skipped: the model makes no embeddings", flush=True)
        return
    vector = client.infer(model, [text(PROMPT)], outputs=outputs("embedding")).as_numpy("embedding")
    check(vector.ndim == 1 and abs(float(np.linalg.norm(vector)) - 1.0) < 1e-3, f"embedding of {vector.size} values")


def check_stream(address, model, expected):
    stream = Stream(address)
    ids = [str(i) for i in range(8)]
    for request_id in ids:
        stream.send(model, greedy(PROMPT), request_id)
    for request_id, answers in stream.until_final(ids).items():
        check("".join(map(output_text, answers)) == expected, f"stream {request_id}: {len(answers)} answers, same text")
        finals = [parameter(a, "triton_final_response") for a in answers]
        check(finals == [False] * (len(finals) - 1) + [True], "only the last one is final")
        check(parameter(answers[-1], "output_tokens") == TOKENS, "and says the usage")
    stream.send(model, greedy(PROMPT), "empty", enable_empty_final_response=True)
    answers = stream.until_final(["empty"])["empty"]
    check(len(answers[-1].get_response().outputs) == 0, "an empty final response when asked for")
    check("".join(map(output_text, answers[:-1])) == expected, "after the same text")
    stream.send(model, greedy(PROMPT) + [tensor("stream", "BOOL", [False], np.bool_)], "whole")
    answers = stream.until_final(["whole"])["whole"]
    check([output_text(a) for a in answers] == [PROMPT + expected], "stream=false answers once")
    stream.send(model, [tensor("text_input", "INT32", [1], np.int32)], "bad")
    check("text_input" in stream.error(), "and names the tensor")
    stream.send("no-such-model", greedy(PROMPT), "bad")
    check("MODEL_NOT_FOUND" in stream.error(), "and the reason")
    stream.send(model, greedy(PROMPT), "after")
    check(len(stream.until_final(["after"])["after"]) > 0, "an error does not end the stream")
    stream.close()
    check(stream.answers.empty(), "half-close ends it quietly")


def check_stream_edges(address, model, expected):
    """What the client library hides: the id of an error, more requests than run at once, half-close, cancel."""
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def message(request_id, prompt, max_tokens=TOKENS):
            # The library's own encoding.
            return triton._utils._get_inference_request(
                model, greedy(prompt, max_tokens), "", request_id, None, 0, False, False, 0, None, None
            )

        def is_final(answer):
            return answer.infer_response.parameters["triton_final_response"].bool_param

        bad = service_pb2.ModelInferRequest(model_name=model, id="x")
        answers = list(stub.ModelStreamInfer(iter([bad, message("y", PROMPT)]), timeout=TIMEOUT_S))
        errors = [a for a in answers if a.error_message]
        check(len(errors) == 1 and errors[0].infer_response.id == "x", "an error carries the id of its request")
        check(errors[0].infer_response.parameters["sluice_code"].string_param == "INVALID_ARGUMENT", "and its code")
        check(is_final(answers[-1]), "half-close waits for the rest")

        many = [message(str(i), PROMPT, 2) for i in range(100)]
        answers = list(stub.ModelStreamInfer(iter(many), timeout=TIMEOUT_S))
        finals = {a.infer_response.id for a in answers if is_final(a)}
        check(len(finals) == 100, "100 requests on one stream are all answered")

        call = stub.ModelStreamInfer(iter([message("long", PROMPT, 200)]), timeout=TIMEOUT_S)
        next(call)
        call.cancel()
        check(call.code() == grpc.StatusCode.CANCELLED, "a stream can be cancelled")


def check_repository(client, model):
    index = client.get_model_repository_index().models
    check(any(m.name == model and m.state == "READY" for m in index), f"index: {[(m.name, m.state) for m in index]}")
    client.load_model(model)
    check(client.is_model_ready(model), "loading a model that is ready changes nothing")
    refused(lambda: client.load_model(model, config="{}"), "INVALID_ARGUMENT", "config")
    refused(lambda: client.load_model("no-such-model"), "NOT_FOUND", model)
    refused(lambda: client.unload_model("no-such-model"), "NOT_FOUND")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    address = sys.argv[1]
    client = triton.InferenceServerClient(address)
    ready = [m.name for m in client.get_model_repository_index().models if m.state == "READY"]
    model = sys.argv[2] if len(sys.argv) == 3 else ready[0]
    check_health(address)
    check_metadata(client, model)
    expected = check_infer(client, model)
    check_refusals(client, model)
    check_embedding(client, model)
    check_stream(address, model, expected)
    check_stream_edges(address, model, expected)
    check_repository(client, model)
    print("all held")


if __name__ == "__main__":
    main()
