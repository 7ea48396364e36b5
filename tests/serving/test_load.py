"""The load generator counts what is right, wrong and lost, over TF Serving's gRPC."""

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is missing")

from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_service_pb2_grpc,
)


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers `Predict` as tensorflow_model_server does, from one SavedModel."""

    def __init__(self, served):
        self.served = served

    def Predict(self, request, context):
        feeds = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        try:
            found = self.served.signatures[request.model_spec.signature_name](**feeds)
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        response = predict_pb2.PredictResponse()
        for name, value in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return response


@pytest.fixture
def address(saved_model):
    server = grpc.server(ThreadPoolExecutor(4))
    service = Service(saved_model[1])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_grpc(address, load, signature, easy, hardest):
    budget = {"max_samples": 500, "max_passes": 6}
    replies = load.run(
        lambda: load.Grpc(address, "demo"), easy, 4, 2.0, budget, hardest, 0.5
    )
    assert len(replies) >= 4 and {reply.hard for reply in replies} == {True, False}
    assert all(reply.answer for reply in replies)
    assert load.audit(signature, replies, budget, batch_size=7) == []
    counts = load.summary(replies, 2.0, [])
    assert counts["lost"] == counts["errors"] == counts["wrong"] == 0
    assert sum(counts["decisions"].values()) == counts["requests"] == len(replies)
    assert counts["p50 ms"] <= counts["p99 ms"] <= counts["max ms"]


def test_what_is_not_right_is_counted(address, load, signature, easy):
    budget = {"max_samples": 500, "max_passes": 6}

    def run(address, rows):
        connect = lambda: load.Grpc(address, "demo", timeout=5)  # noqa: E731
        return load.run(connect, rows, 1, 0.2, budget)

    replies = run(address, easy) + run(address, easy)
    # One vote moved from a class to another.
    votes = replies[0].answer["votes"] - np.array([[1, -1, 0]])
    answer = replies[0].answer | {"votes": votes}
    replies[0] = dataclasses.replace(replies[0], answer=answer)
    assert load.audit(signature, replies, budget) == [replies[0]]
    assert load.summary(replies, 1, [replies[0]])["wrong"] == 1
    # More votes than were allowed.
    assert load.audit(signature, replies[1:], budget | {"max_samples": 9}) != []

    errors = load.summary(run(address, easy[:, :1]), 1, [])
    assert errors["errors"] == errors["requests"] > 0 == errors["lost"]
    lost = load.summary(run("127.0.0.1:1", easy), 1, [])
    assert lost["lost"] == lost["requests"] > 0 == lost["errors"]


def test_command(address, load, saved_model, easy, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "inputs.npy", easy)
    arguments = [str(saved_model[0]), str(tmp_path / "inputs.npy"), "--grpc", address]
    arguments += ["--clients", "2", "--seconds", "1", "--max-passes", "9"]
    monkeypatch.setattr(sys, "argv", ["load.py", *arguments])
    load.main()
    printed = capsys.readouterr().out
    assert "wrong: 0" in printed and "lost: 0" in printed and "p99 ms" in printed


def test_client(address, client, easy, tmp_path, monkeypatch, capsys):
    """The client of one request, against the same server."""
    np.savez(tmp_path / "audit.npz", inputs=easy[:3], seed=np.zeros((3, 2), np.int32))
    arguments = [str(tmp_path / "audit.npz"), "--address", address]
    monkeypatch.setattr(sys, "argv", ["client.py", *arguments, "--signature", "seeded"])
    client.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("robust after" in line for line in lines)
    votes = json.loads(lines[0].split("votes ")[1].split(", agreement")[0])
    assert votes[0] == votes[2] == 0 < votes[1]
