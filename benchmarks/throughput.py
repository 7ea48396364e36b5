"""Certified votes per second over raw forward passes per second, on MNIST.

The sum of the returned `num_samples` over the time of `predict`, against the
base model's best raw throughput over batch sizes and XLA on or off. Both are
measured in turn, several times, in one run; the ratio is of medians.

    python benchmarks/throughput.py MODEL.keras
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_probcert import CertifiedPredictor, Decision, LInf


def raw_function(model, jit_compile):
    return tf.function(
        lambda x: model(x, training=False),
        jit_compile=jit_compile,
        reduce_retracing=True,
    )


def raw_rate(function, x, seconds=4.0):
    """Forward passes per second on batches that are already tensors."""
    function(x)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        function(x).numpy()
        count += 1
    return count * len(x) / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .keras file, of examples/mnist.py --save")
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--epsilon", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--forward-batch-size", type=int, default=2048)
    args = parser.parse_args()

    images = tfds.load("mnist", split=f"test[:{args.inputs}]", batch_size=-1)["image"]
    x = images.numpy().astype("float32") / 255
    model = keras.saving.load_model(args.model)
    certified = CertifiedPredictor(
        model, LInf(args.epsilon), forward_batch_size=args.forward_batch_size
    )

    # Noisy copies, as the certificate classifies them.
    rng = np.random.default_rng(0)
    copies = x[rng.integers(0, len(x), 4096)]
    noise = rng.uniform(-args.epsilon, args.epsilon, copies.shape)
    copies = np.clip(copies + noise, 0, 1)
    copies = tf.constant(copies, tf.float32)
    raw = {}
    for jit_compile in (False, True):
        function = raw_function(model, jit_compile)
        for size in (256, 512, 1024, 2048, 4096):
            rate = raw_rate(function, copies[:size], seconds=2.0)
            print(f"raw, XLA {jit_compile}, batch {size}: {rate:,.0f}/s", flush=True)
            raw[jit_compile, size] = (rate, function)
    best = sorted(raw, key=lambda key: raw[key][0], reverse=True)[:3]

    certified.predict(x[:8], seed=0, verbose=0)  # Traces the loop.
    rates, raws = [], []
    for repeat in range(args.repeats):
        raws.append(
            max(raw_rate(raw[key][1], copies[: key[1]], seconds=3.0) for key in best)
        )
        start = time.perf_counter()
        result = certified.predict(x, seed=repeat, verbose=0)
        seconds = time.perf_counter() - start
        rates.append(result["num_samples"].sum() / seconds)
        print(
            f"raw {raws[-1]:,.0f}/s, certified {rates[-1]:,.0f}/s, "
            f"ratio {rates[-1] / raws[-1]:.3f}",
            flush=True,
        )
    agreement = result["votes"].max(axis=1) / result["num_samples"]
    print(
        f"{len(x)} inputs: unanimous {np.mean(agreement == 1):.3f}, agreement "
        f"above .99 {np.mean(agreement > 0.99):.3f}, below .9 "
        f"{np.mean(agreement < 0.9):.3f}; "
        + ", ".join(
            f"{d.name.lower()} {np.mean(result['decision'] == d):.3f}" for d in Decision
        )
        + f"; {result['num_samples'].mean():,.0f} samples an input"
    )
    print(f"ratio of medians: {np.median(rates) / np.median(raws):.3f}")


if __name__ == "__main__":
    main()
