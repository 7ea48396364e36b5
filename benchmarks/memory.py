"""Peak memory of training with many copies in chunks, over few copies.

Each figure comes from a process of its own: the peak resident memory during
training steps less that of the same process before the first one.

    python benchmarks/memory.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys


def peak():
    """The peak resident memory of this process in MB."""
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def measure(num_samples, chunk_size, batch_size):
    """The memory that training steps take, in MB."""
    import keras
    import numpy as np

    from keras_probcert import LInf, VarianceMinimizingModel
    from keras_probcert.architectures import basic_convnet

    model = VarianceMinimizingModel(
        basic_convnet(), LInf(0.3), num_samples=num_samples, chunk_size=chunk_size
    )
    model.compile(
        keras.optimizers.SGD(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    x = rng.random((batch_size, 28, 28, 1), np.float32)
    y = rng.integers(0, 10, batch_size)
    # What a first forward pass brings with it is not the step's.
    model.predict_on_batch(x)
    before = peak()
    for _ in range(2):
        model.train_on_batch(x, y)
    return peak() - before


def in_its_own_process(num_samples, chunk_size, batch_size):
    arguments = json.dumps([num_samples, chunk_size, batch_size])
    run = subprocess.run(
        [sys.executable, __file__, "--measure", arguments],
        capture_output=True,
        text=True,
        check=True,
        # Memory given back to the allocator must not be counted as in use.
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "0"},
    )
    return json.loads(run.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*json.loads(args.measure))))
        return
    few = in_its_own_process(32, None, args.batch_size)
    print(f"n = 32, whole: {few:,.0f} MB", flush=True)
    chunks = in_its_own_process(512, 32, args.batch_size)
    print(f"n = 512 in chunks of 32: {chunks:,.0f} MB, {chunks / few:.2f} times")
    whole = in_its_own_process(512, None, args.batch_size)
    print(f"n = 512, whole: {whole:,.0f} MB, {whole / few:.2f} times")


if __name__ == "__main__":
    main()
