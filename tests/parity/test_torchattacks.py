"""The attacks against those of TorchAttacks, on the same weights and images.

TorchAttacks runs in a Python of its own, which `KERAS_PROBCERT_TORCH` names; see
CONTRIBUTING. Deterministic attacks have to find the same points, in float64; attacks
that draw at random have to succeed as often, by an exact test.
"""

import dataclasses
import json
import os
import pathlib
import subprocess

import keras
import numpy as np
import pytest
from scipy import special, stats

from keras_probcert import attacks
from keras_probcert.architectures import basic_convnet, resnet18

TORCH = os.environ.get("KERAS_PROBCERT_TORCH")
HERE = pathlib.Path(__file__).parent

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not TORCH,
        reason="KERAS_PROBCERT_TORCH does not name the python of an environment "
        "with torch and torchattacks (CONTRIBUTING says how to make one)",
    ),
]

# With `full`, all attacks on all networks, on more images and seeds.
FULL = os.environ.get("KERAS_PROBCERT_PARITY") == "full"
# Seeds on either side, for attacks that draw at random.
SEEDS = 10 if FULL else 5
# The probability with which one comparison of equal attacks fails. There are fewer
# than 50 of them, so all are false alarms with a probability below 5e-7.
FALSE_ALARM = 1e-8


@dataclasses.dataclass
class Network:
    """A network, how it is trained for these tests, and how it is attacked."""

    build: callable
    # Images are averaged over squares of so many pixels.
    shrink: int
    train: int
    epochs: int
    epsilon: float
    # Rows that are attacked, and how many of them by attacks that draw at random.
    rows: int
    random_rows: int
    # Of those attacks, the ones to run unless all are.
    random: tuple = ()


NETWORKS = {
    "basic_convnet": Network(basic_convnet, 2, 4000, 4, 6 / 255, 100, 60),
    "resnet18": Network(
        *(resnet18, 4, 1000, 2, 2 / 255, 40 if FULL else 10, 10),
        random=("PGD", "PGDL2", "TIFGSM", "Jitter", "GaussianNoise"),
    ),
}


@dataclasses.dataclass
class Pair:
    """The same attack on both sides."""

    ours: attacks.Attack
    theirs: dict
    # TorchAttacks draws or stops once for a whole batch where each of our rows does
    # for itself: it is given one row at a time.
    one_by_one: bool = False
    # Its name in TorchAttacks, where that is another.
    name: str | None = None


def deterministic(epsilon):
    """The attacks that draw nothing, by name."""
    ours = {"epsilon": epsilon, "steps": 10, "step_size": epsilon / 4}
    theirs = {"eps": epsilon, "steps": 10, "alpha": epsilon / 4}
    iterated = ("BIM", "MIFGSM", "NIFGSM", "SINIFGSM", "UPGD")
    return {
        "FGSM": Pair(attacks.FGSM(epsilon), {"eps": epsilon}),
        **{name: Pair(getattr(attacks, name)(**ours), theirs) for name in iterated},
        # It ends once the cost of the whole batch has grown, ours row by row.
        "CW": Pair(attacks.CW(steps=50), {"steps": 50}, one_by_one=True),
        # It casts images to float32, so only verdicts can be compared.
        "FAB": Pair(attacks.FAB(epsilon, steps=20), {"eps": epsilon, "steps": 20}),
    }


def random(epsilon, size):
    """The attacks that draw at random, by name, for images of `size` values."""
    ours = {"epsilon": epsilon, "steps": 10, "step_size": epsilon / 4}
    theirs = {"eps": epsilon, "steps": 10, "alpha": epsilon / 4}
    iterated = (
        *("PGD", "VMIFGSM", "VNIFGSM", "RFGSM", "TPGD", "EOTPGD", "Jitter"),
        *("DIFGSM", "TIFGSM"),
    )
    # The draw of a size and a place is the batch's.
    shared = ("DIFGSM", "TIFGSM")
    # About the length of the L∞ attacks' steps, for the others.
    length = 0.5 * epsilon * size**0.5
    return {
        **{
            name: Pair(getattr(attacks, name)(**ours), theirs, name in shared)
            for name in iterated
        },
        "FFGSM": Pair(
            attacks.FFGSM(epsilon, step_size=epsilon),
            {"eps": epsilon, "alpha": epsilon},
        ),
        "PGDL2": Pair(
            attacks.PGDL2(length, steps=10, step_size=length / 5),
            {"eps": length, "steps": 10, "alpha": length / 5},
        ),
        # With fewer steps TorchAttacks rounds the checkpoints down.
        "APGD": Pair(attacks.APGD(epsilon, steps=100), {"eps": epsilon, "steps": 100}),
        "APGDT": Pair(
            attacks.APGDT(epsilon, steps=100, targets=2),
            {"eps": epsilon, "steps": 100, "n_classes": 3},
        ),
        # It draws one square for all rows of a batch.
        "Square": Pair(
            attacks.Square(epsilon, queries=100),
            {"eps": epsilon, "n_queries": 100},
            one_by_one=True,
        ),
        "OnePixel": Pair(attacks.OnePixel(pixels=3), {"pixels": 3}),
        "Pixle": Pair(
            attacks.Pixle(restarts=3, iterations=5),
            {"restarts": 3, "max_iterations": 5},
        ),
        "GaussianNoise": Pair(attacks.GaussianNoise(0.1), {"std": 0.1}, name="GN"),
    }


def pairs(name):
    """All pairs for a network, by name of the attack."""
    network = NETWORKS[name]
    size = 3 * (32 // network.shrink) ** 2
    return deterministic(network.epsilon) | random(network.epsilon, size)


DETERMINISTIC = [(n, a) for n in NETWORKS for a in deterministic(1.0)]
RANDOM = [
    (name, attack)
    for name, network in NETWORKS.items()
    for attack in random(1.0, 1)
    if FULL or not network.random or attack in network.random
]
DTYPES = ("float32", "float64")


def cifar(split, shrink):
    """CIFAR-10 averaged over squares, away from the ends of the range; or a skip."""
    tfds = pytest.importorskip("tensorflow_datasets")
    try:
        loaded = tfds.load(
            "cifar10", split=split, batch_size=-1, as_supervised=True, download=False
        )
    except (AssertionError, FileNotFoundError, ValueError) as error:
        pytest.skip(f"CIFAR-10 is not where TFDS_DATA_DIR points: {error}")
    x, y = tfds.as_numpy(loaded)
    rows, side, _, channels = x.shape
    x = x.reshape(rows, side // shrink, shrink, side // shrink, shrink, channels)
    # TorchAttacks' CW cannot move pixels at 0 and 1. Noise, so that no two values
    # are the same for max pooling.
    noise = np.random.default_rng(0).uniform(-0.01, 0.01, (rows, *x.shape[1::2]))
    x = 0.5 + 0.9 * (x.mean((2, 4)) / 255 - 0.5) + noise
    return x.astype("float32"), y.astype("int32")


@pytest.fixture(scope="session")
def trained():
    """Each network, barely trained, and images that it gets right."""
    return {name: train(network) for name, network in NETWORKS.items()}


def train(network):
    keras.utils.set_random_seed(0)
    x, y = cifar(f"train[:{network.train}]", network.shrink)
    model = network.build(x.shape[1:])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8  # So that a few steps settle the averages.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.fit(x, y, batch_size=50, epochs=network.epochs, verbose=0)
    # TorchAttacks picks logits by multiplying the others with 0 and taking the
    # largest, which needs positive ones; no cross-entropy sees a common shift.
    bias = model.layers[-1].bias
    bias.assign(bias + 20.0)

    x, y = cifar("test[:1000]", network.shrink)
    right = np.flatnonzero(predicted(model, x) == y)[: network.rows]
    # Where the model was wrong before, ours may return the input.
    assert len(right) == network.rows
    return model, x[right], y[right]


def predicted(model, x):
    return np.argmax(keras.ops.convert_to_numpy(model(x, training=False)), axis=1)


@pytest.fixture(scope="session")
def twins(trained):
    """The networks in both dtypes."""
    models = {}
    for name, (model, _, _) in trained.items():
        for dtype in DTYPES:
            models[name, dtype] = of_dtype(dtype, NETWORKS[name].build, model)
    return models


def of_dtype(dtype, build, model):
    """`model` built anew, its input and its layers in `dtype`."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        twin = build(model.input_shape[1:])
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    twin.set_weights(model.get_weights())
    return twin


@pytest.fixture(scope="session")
def theirs(trained, tmp_path_factory):
    """What TorchAttacks finds in all jobs, by key; a process for each network."""
    runs = {}
    for name, (model, x, y) in trained.items():
        folder = tmp_path_factory.mktemp(name)
        weights = {
            f"{layer.name}/{index}": weight
            for layer in model.layers
            for index, weight in enumerate(layer.get_weights())
        }
        np.savez(folder / "network.npz", architecture=model.to_json(), **weights)
        np.savez(folder / "images.npz", x=x, y=y)
        (folder / "jobs.json").write_text(json.dumps(jobs(name)))
        command = [TORCH, str(HERE / "torch_side.py"), str(folder)]
        runs[folder] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    found = {}
    for folder, run in runs.items():
        _, errors = run.communicate()
        assert run.returncode == 0, errors[-4000:]
        with np.load(folder / "results.npz") as results:
            found.update(results)
    return found


def jobs(network):
    """What TorchAttacks is to run on a network."""
    todo = [job(network, None, None, dtype, 0) for dtype in DTYPES]
    rows = random_rows(network)
    for attack, pair in pairs(network).items():
        if (network, attack) in DETERMINISTIC:
            dtypes = DTYPES if attack != "FAB" else DTYPES[:1]
            todo += [job(network, attack, pair, dtype, 0) for dtype in dtypes]
        if (network, attack) in RANDOM:
            todo += [
                job(network, attack, pair, "float32", s, rows) for s in range(SEEDS)
            ]
    return todo


def random_rows(network):
    return NETWORKS[network].rows if FULL else NETWORKS[network].random_rows


def job(network, attack, pair, dtype, seed, rows=None):
    return {
        "key": key(network, attack, dtype, seed),
        "dtype": dtype,
        "rows": rows,
        "attack": attack and (pair.name or attack),
        "arguments": pair.theirs if pair else {},
        "one_by_one": bool(pair) and pair.one_by_one,
        "seed": seed,
    }


def key(network, attack, dtype, seed=0):
    return f"{network}/{attack}/{dtype}/{seed}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_twins_give_the_same_logits(network, dtype, trained, twins, theirs):
    _, x, _ = trained[network]
    logits = keras.ops.convert_to_numpy(twins[network, dtype](x.astype(dtype)))
    expected = theirs[key(network, None, dtype) + "/logits"]
    assert logits.dtype == expected.dtype == dtype
    atol = {"float32": 1e-4, "float64": 1e-9}[dtype]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("network", "attack"), [pair for pair in DETERMINISTIC if pair[1] != "FAB"]
)
def test_deterministic_attacks_find_the_same_points(
    network, attack, trained, twins, theirs, record_property
):
    _, x, y = trained[network]
    x = x.astype("float64")
    model = twins[network, "float64"]
    found = pairs(network)[attack].ours(model, x, y)
    name = key(network, attack, "float64")
    expected, logits = theirs[name], theirs[name + "/logits"]

    # Ours returns the input where the search lowered the loss and fooled nobody.
    kept = np.all(found == x, axis=(1, 2, 3)) & np.any(expected != x, axis=(1, 2, 3))
    before = theirs[key(network, None, "float64") + "/logits"]
    lowered = cross_entropy(logits, y) < cross_entropy(before, y)
    assert np.all((lowered & (np.argmax(logits, axis=1) == y))[kept])
    assert kept.mean() <= 0.1

    success = np.mean(predicted(model, found) != y)
    difference = np.abs(found - expected)[~kept].max()
    record_property(
        "parity",
        f"{network:14} {attack:14} {100 * success:7.1f} "
        f"{100 * np.mean(np.argmax(logits, axis=1) != y):7.1f}  "
        f"largest difference {difference:.1e}, {kept.sum()} rows kept",
    )
    assert difference <= 1e-6


def cross_entropy(logits, y):
    return -np.take_along_axis(special.log_softmax(logits, axis=1), y[:, None], 1)[:, 0]


@pytest.mark.parametrize(("network", "attack"), DETERMINISTIC)
def test_deterministic_attacks_agree_in_single_precision(
    network, attack, trained, twins, theirs, record_property
):
    _, x, y = trained[network]
    model = twins[network, "float32"]
    fooled = predicted(model, pairs(network)[attack].ours(model, x, y)) != y
    logits = theirs[key(network, attack, "float32") + "/logits"]
    same = np.mean(fooled == (np.argmax(logits, axis=1) != y))
    record_property(
        "parity", f"{network:14} {attack:14} float32: same {100 * same:.0f}"
    )
    # A sign that flips by rounding leads elsewhere, seldom over the border.
    assert same >= 0.99


@pytest.mark.parametrize(("network", "attack"), RANDOM)
def test_random_attacks_succeed_as_often(
    network, attack, trained, twins, theirs, record_property
):
    _, x, y = trained[network]
    x, y = x[: random_rows(network)], y[: random_rows(network)]
    model = twins[network, "float32"]
    ours = pairs(network)[attack].ours
    a = sum(predicted(model, ours(model, x, y, seed=s)) != y for s in range(SEEDS))
    keys = [key(network, attack, "float32", s) + "/logits" for s in range(SEEDS)]
    b = sum(np.argmax(theirs[k], axis=1) != y for k in keys)

    p_value = exact_p_value(a, b)
    # Of the mean over these images; the rows of a batch have their own draws.
    difference = np.mean(a - b) / SEEDS
    variance = sum(c / SEEDS * (1 - c / SEEDS) / (SEEDS - 1) for c in (a, b))
    half = stats.norm.ppf(0.975) * np.sqrt(variance.sum()) / len(y)
    record_property(
        "parity",
        f"{network:14} {attack:14} {100 * a.mean() / SEEDS:7.1f} "
        f"{100 * b.mean() / SEEDS:7.1f} {100 * difference:+6.1f} "
        f"[{100 * (difference - half):+5.1f}, {100 * (difference + half):+5.1f}] "
        f"p = {p_value:.3f}",
    )
    assert p_value >= FALSE_ALARM


def exact_p_value(a, b):
    """The p-value of equal attacks, from successes in `SEEDS` runs on each image.

    Given an image's successes on both sides together, ours are hypergeometric if the
    attacks are equal, whatever the image's own rate; the test is on their sum.
    """
    law = np.ones(1)
    for total in a + b:
        image = stats.hypergeom(2 * SEEDS, total, SEEDS).pmf(np.arange(SEEDS + 1))
        law = np.convolve(law, image)
    at_most, at_least = law[: a.sum() + 1].sum(), law[a.sum() :].sum()
    return min(1.0, 2 * min(at_most, at_least))
