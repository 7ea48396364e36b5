"""The Ray Serve example answers many clients at once, each by itself."""

import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="ray is missing: pip install '.[ray]'",
    ),
]

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "serving" / "ray_serve.py"
BUDGET = {"max_samples": 2000, "max_passes": 40}


@pytest.fixture(scope="module")
def server(saved_model, tmp_path_factory):
    """The URL of the example; it ends by itself, even if the tests do not end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SCRIPT), str(saved_model[0]), "--port", str(port)]
    command += ["--max-batch-size", "16", "--seconds", "600"]
    for name, most in BUDGET.items():
        command += [f"--{name.replace('_', '-')}", str(most)]
    log = tmp_path_factory.mktemp("log") / "stderr"
    # A busy machine does not have Ray's proxy ready in the five seconds it is given.
    environment = {**os.environ, "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        )
    try:
        lines = iter(process.stdout.readline, "")
        ready = any(line.startswith("ready") for line in lines)
        assert ready, log.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0, log.read_text()[-3000:]


def direct(signature, inputs, seed, max_samples, max_passes=10**6):
    import tensorflow as tf

    answer = signature(
        inputs=tf.constant(inputs),
        seed=tf.constant(seed, tf.int32),
        max_samples=tf.constant(max_samples, tf.int32),
        max_passes=tf.fill([len(inputs)], max_passes),
    )
    return {name: value.numpy() for name, value in answer.items()}


def check(signature, inputs, answer):
    """The answer is what the SavedModel says of these rows, with its seeds."""
    expected = direct(signature, inputs, answer["seed"], answer["num_samples"])
    for name, value in expected.items():
        found = np.asarray(answer[name], value.dtype)
        np.testing.assert_array_equal(found, value, err_msg=name)


def test_concurrent_requests(server, load, signature, easy, hardest):
    bad = easy[:1].copy()
    bad[0, 1] = np.nan
    # What is sent, and what is answered.
    requests = [({"inputs": easy[i : i + 1]}, 200) for i in range(20)]
    requests += [({"inputs": easy[i : i + 4]}, 200) for i in range(4)]
    requests += [({"inputs": np.concatenate([bad, easy[:2]])}, 200)] * 3
    requests += [({"inputs": hardest, "max_passes": np.array(3)}, 200)] * 3
    requests += [({"inputs": hardest}, 200)] * 2
    seed = np.array([[1, 2], [-3, 4]])
    requests += [({"inputs": easy[:2], "seed": seed}, 200)] * 2
    requests += [
        ({"inputs": easy[0]}, 400),
        ({"inputs": easy[:1, :1]}, 400),
        ({"inputs": np.array([["0.5", "0.5"]])}, 400),
        ({"inputs": easy}, 400),  # More rows than a batch may have.
        ({"inputs": easy[:2], "seed": seed[:1]}, 400),
        ({"inputs": easy[:1], "max_samples": np.array(-1)}, 400),
        ({"inputs": easy[:1], "max_votes": np.array(1)}, 400),
    ]
    order = np.random.default_rng(0).permutation(len(requests))

    def reply(index):
        tensors, _ = requests[index]
        with contextlib.closing(load.Http(server)) as ask:
            try:
                return ask(**tensors)
            except load.Refused as refused:
                return str(refused)

    with ThreadPoolExecutor(16) as clients:
        answers = dict(zip(order, clients.map(reply, order), strict=True))
    for index, (tensors, status) in enumerate(requests):
        answer = answers[index]
        if status == 400:
            assert isinstance(answer, str) and answer.startswith("400"), answer
            assert json.loads(answer[4:])["error"]
            continue
        assert isinstance(answer, dict), answer
        check(signature, tensors["inputs"], answer)
        if "seed" in tensors:
            np.testing.assert_array_equal(answer["seed"], tensors["seed"])
        if "max_passes" in tensors:
            assert (answer["max_passes"] == 3).all()
            # Each pass has 64 copies.
            assert answer["num_samples"][0] <= 3 * 64
    good = [answer for answer in answers.values() if isinstance(answer, dict)]
    # Requests shared their calls, and no two rows without a seed shared theirs.
    assert len({answer["batch_seconds"].item() for answer in good}) < len(good)
    fresh = [
        s for a in good for s in map(tuple, a["seed"]) if s not in map(tuple, seed)
    ]
    assert len(set(fresh)) == len(fresh) > 20
    refused = [a for a in good if 3 in a["decision"]]
    assert len(refused) == 3
    assert all(a["decision"].tolist() == [3, 1, 1] for a in refused)


def test_a_request_may_not_ask_for_more_than_the_server_gives(server, load, hardest):
    more = {name: np.array([10 * most]) for name, most in BUDGET.items()}
    with contextlib.closing(load.Http(server)) as ask:
        answer = ask(inputs=hardest, **more)
    assert {name: answer[name].item() for name in BUDGET} == BUDGET


def test_no_answer_is_wrong_under_load(server, load, signature, easy, hardest):
    replies = load.run(
        lambda: load.Http(server, timeout=20), easy, 8, 3.0, BUDGET, hardest, 0.1
    )
    counts = load.summary(replies, 3.0, load.audit(signature, replies, BUDGET))
    assert counts["requests"] >= 8
    assert counts["errors"] == counts["lost"] == counts["wrong"] == 0
