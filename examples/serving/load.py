"""Loads a server of certificates, times it, and checks every answer.

    python examples/serving/load.py served/demo/1 inputs.npy --clients 16 --seconds 30
    python examples/serving/load.py served/demo/1 inputs.npy --hard hard.npy \\
        --max-passes 32
    python examples/serving/load.py served/demo/1 inputs.npy \\
        --grpc 127.0.0.1:8500 --model demo

`inputs.npy` holds rows, float32 `(rows, …)`. Each client sends one random row after
another, each with a fresh seed, and waits for its answer; with `--hard`, now and then
one from that file, counted by itself. The server is `ray_serve.py` over HTTP or, with
`--grpc`, a tensorflow_model_server.

Afterwards the SavedModel is asked directly about every answered row: with the same
seed and the answer's `num_samples` as `max_samples`, it must say the same. "Wrong" are
the answers that differ, "lost" the requests without one.
"""

import argparse
import collections
import contextlib
import dataclasses
import http.client
import json
import threading
import time
import urllib.parse

import numpy as np

DECISIONS = ("undecided", "robust", "not robust", "refused", "futile")
BUDGETS = ("max_samples", "max_passes")
LARGEST = np.iinfo(np.int32).max


@dataclasses.dataclass
class Reply:
    """What became of a request of one row."""

    inputs: np.ndarray
    seed: np.ndarray
    hard: bool
    seconds: float
    answer: dict = None  # One row of each output, or
    error: str = None  # what the server said instead, or neither: lost.


class Refused(Exception):
    """The server answered, with an error."""


class Http:
    """A connection to `ray_serve.py`; calling it asks."""

    def __init__(self, url, timeout=60):
        address = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(address.netloc, timeout=timeout)
        self.path = address.path or "/"
        self.close = self.connection.close

    def __call__(self, **tensors):
        body = json.dumps({name: value.tolist() for name, value in tensors.items()})
        try:
            self.connection.request("POST", self.path, body)
            response = self.connection.getresponse()
            answer = response.read()
        except Exception:
            self.close()  # The next request opens it again.
            raise
        if response.status != 200:
            raise Refused(f"{response.status} {answer.decode(errors='replace')[:200]}")
        return {name: np.array(value) for name, value in json.loads(answer).items()}


class Grpc:
    """A connection to a tensorflow_model_server; calling it asks."""

    def __init__(self, address, model, timeout=60):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        channel = grpc.insecure_channel(address)
        self.close = channel.close
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model, self.timeout = model, timeout

    def __call__(self, **tensors):
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = "seeded_budgeted"
        for name, value in tensors.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self.stub.Predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            lost = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
            if error.code() in lost:
                raise
            raise Refused(f"{error.code().name} {error.details()[:200]}") from error
        return {name: tf.make_ndarray(t) for name, t in response.outputs.items()}


def run(connect, inputs, clients, seconds, budget, hard=None, hard_share=0.01, seed=0):
    """The `Reply`s to `clients` clients that ask for `seconds` seconds.

    Args:
        connect: makes a client's connection, `Http` or `Grpc`.
        inputs: float32 `(rows, …)`.
        clients: how many ask at once.
        seconds: after that no request is begun.
        budget: `max_samples` and `max_passes` of each row, a dict.
        hard: rows that are asked instead with probability `hard_share`.
        seed: of the choice of rows and of their seeds.
    """
    budget = {name: np.array([budget[name]], np.int32) for name in BUDGETS}
    replies, start = [], threading.Barrier(clients)

    def client(rng):
        with contextlib.closing(connect()) as ask:
            start.wait()
            stop = time.perf_counter() + seconds
            while time.perf_counter() < stop:
                is_hard = hard is not None and rng.random() < hard_share
                rows = hard if is_hard else inputs
                row = rows[rng.integers(len(rows))][None]
                seeds = rng.integers(-LARGEST, LARGEST, (1, 2), dtype=np.int32)
                replies.append(timed(ask, row, seeds, is_hard))

    def timed(ask, row, seeds, is_hard):
        answer = error = None
        begin = time.perf_counter()
        try:
            answer = ask(inputs=row, seed=seeds, **budget)
        except Refused as refused:
            error = str(refused)
        except Exception as lost:
            print(f"lost: {lost!r}", flush=True)
        return Reply(row, seeds, is_hard, time.perf_counter() - begin, answer, error)

    threads = [
        threading.Thread(target=client, args=(rng,), daemon=True)
        for rng in np.random.default_rng(seed).spawn(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def audit(signature, replies, budget, batch_size=256):
    """The replies whose answer is not what `seeded_budgeted` says of their row alone.

    Args:
        signature: `seeded_budgeted` of the SavedModel.
        replies: `Reply`s with answers.
        budget: what was asked for.
        batch_size: rows a call; they share their passes, so each may take any number.
    """
    import tensorflow as tf

    wrong = []
    # Those that took about as many samples, together.
    replies = sorted(replies, key=lambda reply: int(reply.answer["num_samples"][0]))
    for start in range(0, len(replies), batch_size):
        part = replies[start : start + batch_size]
        taken = np.concatenate([reply.answer["num_samples"] for reply in part])
        found = signature(
            inputs=tf.constant(np.concatenate([reply.inputs for reply in part])),
            seed=tf.constant(np.concatenate([reply.seed for reply in part])),
            max_samples=tf.constant(taken, tf.int32),
            max_passes=tf.fill([len(part)], LARGEST),
        )
        found = {name: value.numpy() for name, value in found.items()}
        for i, reply in enumerate(part):
            same = reply.answer["num_samples"][0] <= budget["max_samples"] and all(
                np.array_equal(np.asarray(reply.answer[name][0], value.dtype), value[i])
                for name, value in found.items()
            )
            if not same:
                wrong.append(reply)
    return wrong


def summary(replies, seconds, wrong):
    """Counts, rate and latencies, a dict."""
    answered = [reply for reply in replies if reply.answer]
    latency = 1000 * np.array([reply.seconds for reply in answered] or [np.nan])
    p50, p99 = np.percentile(latency, (50, 99))
    decisions = [DECISIONS[reply.answer["decision"][0]] for reply in answered]
    return {
        "requests": len(replies),
        "a second": round(len(answered) / seconds, 1),
        "p50 ms": round(float(p50), 1),
        "p99 ms": round(float(p99), 1),
        "max ms": round(float(latency.max()), 1),
        "decisions": dict(collections.Counter(decisions)),
        "errors": sum(reply.error is not None for reply in replies),
        "lost": sum(not reply.answer and reply.error is None for reply in replies),
        "wrong": sum(any(reply is r for r in wrong) for reply in replies),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("saved_model", help="the SavedModel's folder, for the check")
    parser.add_argument("inputs", help=".npy file of rows")
    parser.add_argument("--hard", help=".npy file of rows asked now and then")
    parser.add_argument("--hard-share", type=float, default=0.01)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--grpc", help="host:port of a tensorflow_model_server instead")
    parser.add_argument("--model", default="model", help="its --model_name")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--max-samples", type=int, default=LARGEST)
    parser.add_argument("--max-passes", type=int, default=LARGEST)
    parser.add_argument("--timeout", type=float, default=60, help="seconds a request")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import tensorflow as tf

    def connect():
        if args.grpc:
            return Grpc(args.grpc, args.model, args.timeout)
        return Http(args.url, args.timeout)

    inputs = np.load(args.inputs).astype(np.float32)
    hard = None if args.hard is None else np.load(args.hard).astype(np.float32)
    budget = {name: getattr(args, name) for name in BUDGETS}
    begin = time.perf_counter()
    replies = run(
        connect,
        inputs,
        args.clients,
        args.seconds,
        budget,
        hard,
        args.hard_share,
        args.seed,
    )
    seconds = time.perf_counter() - begin
    served = tf.saved_model.load(args.saved_model)
    answered = [reply for reply in replies if reply.answer]
    wrong = audit(served.signatures["seeded_budgeted"], answered, budget)
    for name, is_hard in (("inputs", False), ("hard", True)):
        kind = [reply for reply in replies if reply.hard == is_hard]
        if kind:
            print(name)
            for key, value in summary(kind, seconds, wrong).items():
                print(f"  {key}: {value}")
    for error, count in collections.Counter(reply.error for reply in replies).items():
        if error:
            print(f"{count} times: {error}")
    if wrong or any(not reply.answer and not reply.error for reply in replies):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
