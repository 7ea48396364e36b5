"""How much of the raw throughput certifying reaches, by inputs a batch; and others.

At each number of inputs a batch, returned votes per second of
`CertifiedPredictor.predict` over the base model's raw forward passes per second, each
at its best batch size, both in turn in one run. Then the same inputs (a) in a naive
Python loop over Keras' `predict` and SciPy's `binomtest`, and (b), if it is
installed, with ART's `TensorFlowV2RandomizedSmoothing` counting 1,100 votes an input.

    python benchmarks/batches.py MODEL.keras
"""

import argparse
import time

import keras
import numpy as np
import scipy.stats
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_probcert import CertifiedPredictor, LInf, forward_rate

SIZES = (256, 512, 1024, 2048, 4096)


def raw_rate(function, copies, size, seconds=5.0):
    """Forward passes per second in batches of `size`."""
    batch = tf.constant(copies[:size])
    function(batch)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        function(batch).numpy()
        count += size
    return count / (time.perf_counter() - start)


def best_size(function, copies, rounds=5):
    """The batch size of the most forward passes a second.

    By medians over rounds that go through all sizes. The rate is measured anew
    afterwards: the highest of several that scatter is too high.
    """
    rates = [
        [raw_rate(function, copies, size, seconds=1.0) for size in SIZES]
        for _ in range(rounds)
    ]
    return SIZES[int(np.argmax(np.median(rates, axis=0)))]


def naive(model, x, epsilon, kappa, alpha, rng, most=2000):
    """Votes per second of the paper's loop, a batch of 64 copies at a time."""
    votes, start = 0, time.perf_counter()
    for image in x:
        counts, n, decided = np.zeros(10, int), 0, False
        while not decided and n < most:
            noise = rng.uniform(-epsilon, epsilon, (64, *image.shape))
            copies = np.clip(image + noise, 0, 1).astype("float32")
            for label in model.predict(copies, verbose=0).argmax(axis=1):
                counts[label] += 1
                n += 1
                for alternative in ("greater", "less"):
                    test = scipy.stats.binomtest(
                        counts.max(), n, 1 - kappa, alternative=alternative
                    )
                    decided = decided or test.pvalue < alpha
                if decided or n == most:
                    break
        votes += n
    return votes / (time.perf_counter() - start)


def art_rate(model, x):
    """Votes per second of ART, or `None` where it is not installed."""
    try:
        from art.estimators.certification.randomized_smoothing import (
            TensorFlowV2RandomizedSmoothing,
        )
    except ImportError:
        return None
    smoothed = TensorFlowV2RandomizedSmoothing(
        model=lambda batch, training=False: model(batch, training=False),
        nb_classes=10,
        input_shape=x.shape[1:],
        clip_values=(0, 1),
        sample_size=1100,
        scale=0.1,
        alpha=0.01,
    )
    smoothed.certify(x[:1], n=100, batch_size=2048)
    start = time.perf_counter()
    # `certify` counts 100 votes for the label itself.
    smoothed.certify(x, n=1000, batch_size=2048)
    return len(x) * 1100 / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .keras file, of examples/mnist.py --save")
    parser.add_argument("--epsilon", type=float, default=0.3)
    parser.add_argument("--kappa", type=float, default=0.01)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 64, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--raw-seconds",
        type=float,
        default=5.0,
        help="how long the raw rate is measured on either side of each run",
    )
    args = parser.parse_args()

    count = max(args.sizes)
    images = tfds.load("mnist", split=f"test[:{count}]", batch_size=-1)["image"]
    x = images.numpy().astype("float32") / 255
    model = keras.saving.load_model(args.model)
    function = tf.function(lambda batch: model(batch, training=False))
    rng = np.random.default_rng(0)
    copies = x[rng.integers(0, len(x), 4096)]
    noise = rng.uniform(-args.epsilon, args.epsilon, copies.shape)
    copies = np.clip(copies + noise, 0, 1).astype("float32")
    forward = best_size(function, copies)
    # Votes go in parts, so another size may be best for them.
    predictors = [
        CertifiedPredictor(
            model, LInf(args.epsilon), kappa=args.kappa, forward_batch_size=size
        )
        for size in SIZES
    ]
    rates = [forward_rate(certified, x[:1], seconds=5.0) for certified in predictors]
    certified = predictors[int(np.argmax(rates))]
    print(
        f"raw passes are fastest in batches of {forward}, votes in batches of "
        f"{certified.forward_batch_size}"
    )

    for size in args.sizes:
        # Compiles, which the number of rows does not matter to.
        certified.predict(x[: min(size, 64)], seed=0, verbose=0)
        shares, votes = [], []
        for repeat in range(args.repeats):
            before = raw_rate(function, copies, forward, args.raw_seconds)
            calls = max(1, 64 // size)
            start, taken = time.perf_counter(), 0
            for call in range(calls):
                rows = x[call * size : (call + 1) * size]
                result = certified.predict(
                    rows, batch_size=size, seed=repeat, verbose=0
                )
                taken += int(result["num_samples"].sum())
            rate = taken / (time.perf_counter() - start)
            # Either side of what may take an hour, in which a machine changes.
            after = raw_rate(function, copies, forward, args.raw_seconds)
            shares.append(2 * rate / (before + after))
            print(
                f"  raw {before:,.0f} and {after:,.0f} a second, share of their mean "
                f"{shares[-1]:.3f}",
                flush=True,
            )
            votes.append(taken / (calls * size))
        print(
            f"{size} inputs a batch: share of raw {np.median(shares):.3f}, "
            f"{np.mean(votes):,.0f} votes an input",
            flush=True,
        )

    # One input at agreement 1 against the fewest votes of any valid test.
    unanimous = certified.predict(x[:64], seed=0, verbose=0)
    row = int(np.argmin(unanimous["num_samples"] + (unanimous["decision"] != 1) * 1e6))
    least = int(np.ceil(np.log(0.01) / np.log1p(-args.kappa)))
    one, batch = x[row : row + 1], tf.constant(copies[:least])
    certified.predict(one, seed=0, verbose=0)
    function(batch)
    times = {"certified": [], "raw": []}
    for _ in range(15):
        start = time.perf_counter()
        certified.predict(one, seed=0, verbose=0)
        times["certified"].append(time.perf_counter() - start)
        start = time.perf_counter()
        function(batch).numpy()
        times["raw"].append(time.perf_counter() - start)
    ratio = np.median(times["certified"]) / np.median(times["raw"])
    print(f"one unanimous input over {least} raw passes in one batch: {ratio:.2f}")

    raw = raw_rate(function, copies, forward)
    rate = naive(model, x[:3], args.epsilon, args.kappa, 0.01, rng)
    print(f"(a) naive loop: {rate:,.0f} votes/s, share of raw {rate / raw:.3f}")
    raw, rate = raw_rate(function, copies, forward), art_rate(model, x[:20])
    if rate is None:
        print("(b) ART is not installed")
    else:
        print(f"(b) ART: {rate:,.0f} votes/s, share of raw {rate / raw:.3f}")


if __name__ == "__main__":
    main()
