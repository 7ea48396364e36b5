"""The SavedModel gives predict's answers, without any Python of ours."""

import json
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import keras
import numpy as np
import pytest

from keras_probcert import CertifiedPredictor, Decision, LInf, row_seeds

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow

ASK_C = Path(__file__).parents[2] / "examples" / "serving" / "ask.c"
ROWS = 1000
SEEDS = row_seeds(0, ROWS)
KAPPA = ALPHA = 0.05
ONE_EACH = "seed must hold one int32 pair for each row of inputs"
SIGNATURES = ["serving_default", "seeded", "budgeted", "seeded_budgeted", "base"]
BAD_INPUT = r"inputs must hold at least one row, be finite and lie in \[0, 1\]"

# What a row's certificate says: dtype, and the shape after the rows.
CERTIFICATE = {
    "label": (tf.int32, []),
    "decision": (tf.int32, []),
    "certified": (tf.bool, []),
    "num_samples": (tf.int32, []),
    "votes": (tf.int32, [3]),
    "lower_bound": (tf.float32, []),
    "upper_bound": (tf.float32, []),
    "p_value": (tf.float32, []),
}


def set_threshold(layer):
    """Class 1 where the first coordinate is above ½, else class 0; never 2."""
    layer.set_weights(
        [np.array([[0, 8, 0], [0, 0, 0]], "float32"), np.array([0, -4, -9], "float32")]
    )


def make_predictor(base, clip=(0, 1), **kwargs):
    """Agreement falls from 1 to ½ as the first coordinate nears ½."""
    return CertifiedPredictor(
        base, LInf(0.2, clip=clip), kappa=KAPPA, alpha=ALPHA, **kwargs
    )


def make_base():
    base = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    set_threshold(base.layers[0])
    return base


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((ROWS, 2), "float32")


@pytest.fixture(scope="module")
def predictor():
    # With a global seed, ops with a state of their own repeat in every load.
    keras.utils.set_random_seed(0)
    return make_predictor(make_base())


@pytest.fixture(scope="module")
def folder(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    predictor.export(folder / "error")
    predictor.export(folder / "refuse", invalid="refuse")
    return folder


@pytest.fixture(scope="module")
def strict(folder):
    return tf.saved_model.load(folder / "error")


@pytest.fixture(scope="module")
def lenient(folder):
    return tf.saved_model.load(folder / "refuse")


@pytest.fixture(scope="module")
def whole(strict, x):
    """The served answer for all rows at once."""
    return ask(strict, "seeded", x, SEEDS)


def ask(served, signature, inputs, seed=None, **budget):
    feeds = {"inputs": tf.constant(inputs)}
    feeds |= {name: tf.constant(value, tf.int32) for name, value in budget.items()}
    if seed is not None:
        feeds["seed"] = tf.constant(seed)
    answer = served.signatures[signature](**feeds)
    return {name: value.numpy() for name, value in answer.items()}


def assert_rows_equal(answer, expected, rows=slice(None)):
    assert answer.keys() == expected.keys()
    for name, value in answer.items():
        np.testing.assert_array_equal(value, expected[name][rows], err_msg=name)


def test_seeded_equals_predict(predictor, whole, x):
    # Else agreement would say little.
    assert set(whole["decision"]) == {
        Decision.FUTILE,
        Decision.ROBUST,
        Decision.NOT_ROBUST,
    }
    assert_rows_equal(whole, predictor.predict(x, seed=0, verbose=0))


def test_a_row_is_the_same_alone_and_in_any_batch(strict, whole, x):
    assert len(set(whole["decision"][:7])) > 1
    assert_rows_equal(ask(strict, "seeded", x[:7], SEEDS[:7]), whole, slice(7))
    for i in range(7):
        row = slice(i, i + 1)
        assert_rows_equal(ask(strict, "seeded", x[row], SEEDS[row]), whole, row)


def test_threads_share_one_load(strict, whole, x):
    together = Barrier(8)

    def client(index):
        together.wait()
        for start in range(index, 600, 150):
            rows = slice(start, start + 150 + index)
            answer = ask(strict, "seeded", x[rows], SEEDS[rows])
            assert_rows_equal(answer, whole, rows)

    with ThreadPoolExecutor(8) as pool:
        # `list` raises what a thread raised.
        list(pool.map(client, range(8)))


@pytest.mark.parametrize("signature", SIGNATURES)
def test_signatures(strict, signature):
    assert set(strict.signatures) == set(SIGNATURES)
    function = strict.signatures[signature]
    inputs = {"inputs": (tf.float32, [None, 2])}
    if "seeded" in signature:
        inputs["seed"] = (tf.int32, [None, 2])
    if "budgeted" in signature:
        inputs |= dict.fromkeys(("max_samples", "max_passes"), (tf.int32, [None]))
    outputs = {name: (dtype, [None, *s]) for name, (dtype, s) in CERTIFICATE.items()}
    if signature == "base":
        outputs = {"outputs": (tf.float32, [None, 3])}

    def described(specs):
        return {name: (s.dtype, s.shape.as_list()) for name, s in specs.items()}

    assert described(function.structured_input_signature[1]) == inputs
    assert described(function.structured_outputs) == outputs


def test_base_gives_the_models_outputs(strict, predictor, x):
    outputs = ask(strict, "base", x)["outputs"]
    np.testing.assert_array_equal(outputs, predictor.base_model(x).numpy())


LOAD = """
    import json
    import sys

    import numpy as np
    import tensorflow as tf

    tf.random.set_seed(0)  # Not even this makes the noise repeat.
    served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
    x = tf.constant(np.load(sys.argv[2]))
    votes = [served(inputs=x)["votes"].numpy().tolist() for _ in range(2)]
    assert "keras_probcert" not in sys.modules
    print(json.dumps(votes))
"""


def test_fresh_noise_differs_between_requests_and_processes(folder, tmp_path):
    # Agreement 0.625: two rows' votes rarely coincide, all rows' never.
    np.save(tmp_path / "x.npy", np.full((64, 2), 0.45, "float32"))
    command = [sys.executable, "-c", textwrap.dedent(LOAD)]
    command += [str(folder / "error"), str(tmp_path / "x.npy")]
    answers = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        answers += json.loads(done.stdout.splitlines()[-1])
    for i, votes in enumerate(answers):
        # Within a request, equal inputs must not share their noise either.
        assert len({tuple(row) for row in votes}) > 5
        assert votes not in answers[:i]


@pytest.mark.parametrize("signature", ["serving_default", "seeded", "base"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.01, 1.01, "empty"])
def test_an_invalid_request_is_an_invalid_argument(strict, signature, bad, x):
    rows = x[:5].copy()
    if bad == "empty":
        rows = rows[:0]
    else:
        rows[3, 1] = bad
    seed = SEEDS[: len(rows)] if signature == "seeded" else None
    with pytest.raises(tf.errors.InvalidArgumentError, match=BAD_INPUT):
        ask(strict, signature, rows, seed)


@pytest.mark.parametrize("signature", ["serving_default", "seeded", "base"])
@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (3,), (3, 2, 1)])
def test_a_wrong_shape_is_an_invalid_argument(lenient, signature, shape):
    """One column would broadcast against the noise of two."""
    rows = np.full(shape, 0.5, "float32")
    seed = SEEDS[:3] if signature == "seeded" else None
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="hape"):
        ask(lenient, signature, rows, seed)


def test_export_after_predict(tmp_path, x):
    """A base without an input shape of its own, built by `predict` alone."""
    base = keras.Sequential([keras.layers.Dense(3)])
    certified = CertifiedPredictor(base, LInf(0.1), 0.2, 0.1, 100)
    expected = certified.predict(x[:5], seed=SEEDS[:5], verbose=0)
    certified.export(tmp_path / "1")
    answer = ask(tf.saved_model.load(tmp_path / "1"), "seeded", x[:5], SEEDS[:5])
    np.testing.assert_array_equal(answer["votes"], expected["votes"])


def test_refuse_refuses_the_invalid_rows_alone(lenient, whole, predictor, x):
    bad = {1: np.nan, 3: -np.inf, 4: 1.01}
    good = [i for i in range(7) if i not in bad]
    rows = x[:7].copy()
    for i, value in bad.items():
        rows[i, i % 2] = value

    answer = ask(lenient, "seeded", rows, SEEDS[:7])
    for i in bad:
        assert answer["decision"][i] == Decision.REFUSED
        assert not answer["certified"][i]
        assert answer["label"][i] == -1
        assert answer["num_samples"][i] == answer["votes"][i].sum() == 0
        assert (answer["lower_bound"][i], answer["upper_bound"][i]) == (0, 1)
    assert_rows_equal({k: v[good] for k, v in answer.items()}, whole, good)

    decision = ask(lenient, "serving_default", rows)["decision"]
    assert ((decision == Decision.REFUSED) == np.isin(range(7), list(bad))).all()

    # Nothing is wrong with the rows of an empty request.
    nothing = ask(lenient, "seeded", rows[:0], SEEDS[:0])
    assert nothing["decision"].shape == (0,) and nothing["votes"].shape == (0, 3)

    outputs = ask(lenient, "base", rows)["outputs"]
    assert np.isnan(outputs[list(bad)]).all()
    expected = predictor.base_model(rows[good]).numpy()
    np.testing.assert_array_equal(outputs[good], expected)


@pytest.mark.parametrize("invalid", ["error", "refuse"])
@pytest.mark.parametrize("seeds", [4, 6])
def test_seeded_needs_a_seed_for_each_row(strict, lenient, invalid, seeds, x):
    served = strict if invalid == "error" else lenient
    with pytest.raises(tf.errors.InvalidArgumentError, match=ONE_EACH):
        ask(served, "seeded", x[:5], SEEDS[:seeds])


def test_a_budget_leaves_a_row_undecided_and_changes_no_vote(strict, predictor, x):
    """Each row by itself, and what it says is repeated by its number of samples."""
    rng = np.random.default_rng(1)
    most = rng.integers(0, 400, 60).astype("int32")
    passes = rng.integers(0, 12, 60).astype("int32")
    free = predictor.predict(x[:60], seed=SEEDS[:60], verbose=0)
    budget = {"max_samples": most, "max_passes": passes}
    answer = ask(strict, "seeded_budgeted", x[:60], SEEDS[:60], **budget)
    assert (answer["num_samples"] <= most).all()
    stopped = answer["num_samples"] < free["num_samples"]
    assert 0.2 < stopped.mean() < 0.8
    assert (answer["decision"][stopped] == Decision.UNDECIDED).all()
    assert not answer["certified"][stopped].any()
    # What was not finished proves nothing.
    for name, nothing in (("lower_bound", 0), ("upper_bound", 1), ("p_value", 1)):
        assert (answer[name][stopped] == nothing).all()
    finished = np.flatnonzero(~stopped)
    expected = {name: value[finished] for name, value in free.items()}
    assert_rows_equal({k: v[finished] for k, v in answer.items()}, expected)
    # An audit of all rows, each up to where it got.
    audit = {"max_samples": answer["num_samples"], "max_passes": passes + 1000}
    again = ask(strict, "seeded_budgeted", x[:60], SEEDS[:60], **audit)
    np.testing.assert_array_equal(again["votes"], answer["votes"])
    fresh = ask(strict, "budgeted", x[:60], **budget)
    assert (fresh["num_samples"] <= most).all()
    assert (fresh["num_samples"][passes == 0] == 0).all()


def test_a_hard_row_holds_its_batch_no_longer_than_its_budget(strict, predictor):
    """The first row is as close to the bar as can be, the others are unanimous."""
    x = np.full((9, 2), 0.95, "float32")
    x[0] = 0.321  # Votes 0 but where the noise exceeds 0.179: 5 % of the copies.
    free = predictor.predict(x, seed=SEEDS[:9], verbose=0)
    assert free["num_samples"][0] > 300
    budget = {"max_samples": [10**6] * 9, "max_passes": [1] + [1000] * 8}
    answer = ask(strict, "seeded_budgeted", x, SEEDS[:9], **budget)
    assert answer["decision"][0] == Decision.UNDECIDED
    assert 0 < answer["num_samples"][0] < 300
    assert answer["certified"][1:].all()


def test_a_budget_of_another_number_of_rows_is_an_invalid_argument(lenient, x):
    for rows in (4, 6):
        for name in ("max_samples", "max_passes"):
            budget = dict.fromkeys(("max_samples", "max_passes"), [9] * 5)
            budget[name] = [9] * rows
            message = f"{name} must hold one int32 number for each row"
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                ask(lenient, "budgeted", x[:5], **budget)


@pytest.fixture(scope="module")
def c_program(folder, tmp_path_factory):
    """Runs examples/serving/ask.c on a model, inputs and seeds."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    tmp_path = tmp_path_factory.mktemp("c")
    lib = Path(tf.sysconfig.get_lib())
    libraries = sorted(
        str(path)
        for name in ("cc", "framework")
        for path in lib.glob(f"libtensorflow_{name}*.2*")
    )
    subprocess.run(
        [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", str(ASK_C)]
        + [f"-I{tf.sysconfig.get_include()}", *libraries, f"-Wl,-rpath,{lib}"]
        + ["-o", str(tmp_path / "ask")],
        check=True,
    )

    def run(inputs, seeds):
        model = folder / "error"
        inputs.astype("<f4").tofile(tmp_path / "inputs.bin")
        seeds.astype("<i4").tofile(tmp_path / "seeds.bin")
        return subprocess.run(
            [tmp_path / "ask", model, *tensor_names(model)]
            + [tmp_path / "inputs.bin", tmp_path / "seeds.bin"]
            + [str(size) for size in inputs.shape[1:]],
            capture_output=True,
            text=True,
        )

    return run


def tensor_names(model):
    """The tensors of the signature `seeded`, as ask.c wants them."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((model / "saved_model.pb").read_bytes())
    signature = saved_model.meta_graphs[0].signature_def["seeded"]
    inputs, outputs = signature.inputs, signature.outputs
    return [inputs[name].name for name in ("inputs", "seed")] + [
        outputs[name].name for name in ("decision", "num_samples", "votes")
    ]


def test_a_c_program_gets_predicts_answers(c_program, predictor, x):
    expected = predictor.predict(x[:100], seed=0, verbose=0)
    done = c_program(x[:100], SEEDS[:100])
    assert done.returncode == 0, done.stderr
    answer = np.array([line.split() for line in done.stdout.splitlines()], int)
    np.testing.assert_array_equal(answer[:, 0], expected["decision"])
    np.testing.assert_array_equal(answer[:, 1], expected["num_samples"])
    np.testing.assert_array_equal(answer[:, 2:], expected["votes"])


def test_a_c_program_is_told_of_an_invalid_request(c_program, x):
    rows = x[:5].copy()
    rows[2, 0] = 1.01
    done = c_program(rows, SEEDS[:5])
    assert done.returncode == tf.errors.INVALID_ARGUMENT
    assert "inputs must hold at least one row" in done.stderr
    assert done.stdout == ""


def test_a_jit_compiled_predictor_exports(tmp_path, whole, x):
    predictor = make_predictor(make_base(), jit_compile=True)
    predictor.export(tmp_path)
    assert predictor.jit_compile
    served = tf.saved_model.load(tmp_path)
    assert_rows_equal(ask(served, "seeded", x, SEEDS), whole)
    # Compiled by XLA, the export would drop its assertions.
    with pytest.raises(tf.errors.InvalidArgumentError, match=BAD_INPUT):
        ask(served, "serving_default", x[:5] + 1)


def test_a_subclassed_model_exports_once_it_is_built(tmp_path, x):
    base = Subclassed()
    predictor = make_predictor(base, clip=None)
    with pytest.raises(ValueError, match="must be built before it is exported"):
        predictor.export(tmp_path)
    base(x[:1])
    set_threshold(base.dense)
    predictor.export(tmp_path)
    served = tf.saved_model.load(tmp_path)

    # Without `clip` every finite input is valid, and only those.
    rows = np.concatenate([x[:5], [[9, -9]]]).astype("float32")
    expected = predictor.predict(rows, seed=0, verbose=0)
    assert_rows_equal(ask(served, "seeded", rows, SEEDS[:6]), expected)
    rows[5] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="be finite"):
        ask(served, "serving_default", rows)


@pytest.mark.parametrize("invalid", ["ignore", None, True])
def test_bad_invalid(predictor, invalid, tmp_path):
    with pytest.raises(ValueError, match="`invalid` must be 'error' or 'refuse'"):
        predictor.export(tmp_path / "model", invalid=invalid)
    assert not (tmp_path / "model").exists()
