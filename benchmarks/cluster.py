"""Certifying a data set on Ray: what workers that are lost cost, what two are worth.

python benchmarks/cluster.py recovery     10,000 MNIST images on a cluster of two
    nodes; a worker is killed and a node removed on the way; row by row the answers
    are those of this process alone
python benchmarks/cluster.py throughput   two workers, pinned to a core each, over
    one; and over two plain processes, pinned alike
"""

import argparse
import functools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import keras
import numpy as np

from keras_probcert import (
    CertifiedPredictor,
    LInf,
    certify_dataset,
    load_certificates,
    row_seeds,
)


def mnist(split):
    import tensorflow_datasets as tfds

    x, y = tfds.as_numpy(
        tfds.load("mnist", split=split, batch_size=-1, as_supervised=True)
    )
    return x.astype("float32") / 255, y.astype("int64")


def train(path):
    """A small ConvNet on 20,000 images, as a predictor at ε = 0.1."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    base = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    base.compile("adam", loss, metrics=["accuracy"])
    base.fit(*mnist("train[:20000]"), batch_size=100, epochs=2, verbose=2)
    CertifiedPredictor(base, LInf(0.1)).save(path)


def recovery(path, rows, folder):
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.state import list_actors

    data = mnist(f"test[:{rows}]")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    output = folder / "cluster"

    def written():
        return len(list((output / "certificates").glob("part-*")))

    def disturb():
        while written() < 3:
            time.sleep(0.2)
        victim = list_actors(filters=[("state", "=", "ALIVE")])[0]
        os.kill(victim.pid, signal.SIGKILL)
        print(f"killed a worker after {written()} files", flush=True)
        before = written()
        while len(list_actors(filters=[("state", "=", "ALIVE")])) < 2:
            time.sleep(0.2)
        while written() < max(before + 2, 6):
            time.sleep(0.2)
        cluster.remove_node(second)
        print(f"removed a node after {written()} files", flush=True)

    threading.Thread(target=disturb, daemon=True).start()
    found = certify_dataset(
        path, data, output, seed=1, workers=2, rows_a_file=500, verbose=0
    )
    ray.shutdown()
    cluster.shutdown()
    print(found)
    capacity = 2 * found["seconds"]
    print(f"lost: {found['lost_seconds'] / capacity:.1%} of two workers' seconds")

    start = time.perf_counter()
    alone = certify_dataset(path, data, folder / "alone", seed=1, verbose=0)
    print(f"alone: {alone}, {time.perf_counter() - start:.0f} s in all")
    here, there = map(load_certificates, (folder / "alone", output))
    assert (there["id"] == np.arange(rows)).all(), "a row is missing or twice"
    different = sum(
        int((np.reshape(here[name] != there[name], (rows, -1)).any(1)).sum())
        for name in ("label", "decision", "num_samples", "votes")
    )
    print(f"{rows} rows, each once; {different} of them differ")


def pin(folder):
    """Keeps this process on a core that no other process of the run has."""
    for core in sorted(os.sched_getaffinity(0)):
        try:
            os.close(os.open(folder / f"core-{core}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})
        return


PLAIN = """
import os, sys, time
core = int(sys.argv[1])
os.sched_setaffinity(0, {core})
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
import keras, numpy as np
import keras_probcert
certified = keras.saving.load_model(sys.argv[2], compile=False)
data = np.load(sys.argv[3])
x, seed = data["x"][core::2], data["seed"][core::2]
certified.predict(x[:1], seed=seed[:1], verbose=0)
certified.predict(x[:300], batch_size=256, seed=seed[:300], verbose=0)
print("ready", flush=True)
input()
start = time.perf_counter()
certified.predict(x, batch_size=256, seed=seed, verbose=0)
print(time.perf_counter() - start)
"""


def plain(path, file):
    """Seconds until the second of two plain processes ends."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PLAIN, str(core), str(path), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for core in range(2)
    ]
    for process in processes:
        assert process.stdout.readline().strip() == "ready"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def throughput(path, rows, folder, repeats):
    x, _ = mnist(f"test[:{rows}]")
    np.savez(folder / "data.npz", x=x, seed=row_seeds(1, rows))
    seconds = {"one worker": [], "two workers": [], "two plain processes": []}
    for repeat in range(repeats):
        for workers, name in ((1, "one worker"), (2, "two workers")):
            output = folder / f"{name} {repeat}"
            cores = pathlib.Path(tempfile.mkdtemp(dir=folder))
            found = certify_dataset(
                *(path, x, output),
                seed=1,
                workers=workers,
                setup=functools.partial(pin, cores),
                verbose=0,
            )
            seconds[name].append(found["seconds"])
            print(f"{name}: {found}", flush=True)
        seconds["two plain processes"].append(plain(path, folder / "data.npz"))
    median = {name: float(np.median(found)) for name, found in seconds.items()}
    for name, value in median.items():
        print(f"{name}: {value:.2f} s for {rows} rows, of {seconds[name]}")
    one, two, bare = median.values()
    print(f"two workers over one: {one / two:.2f}; over two processes {bare / two:.2f}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("recovery", "throughput"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=pathlib.Path, help="a saved CertifiedPredictor")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        path = args.model or folder / "model.keras"
        if not path.exists():
            train(path)
        if args.what == "recovery":
            recovery(path, args.rows or 10_000, folder)
        else:
            throughput(path, args.rows or 2_000, folder, args.repeats)


if __name__ == "__main__":
    main()
