"""One process of training by the example, alone or joined with another.

Run as `train_on_two_hosts.py FOLDER NAME [arguments of the example]`; writes weights,
losses and the rows that were fed to FOLDER/NAME.npz.
"""

import importlib.util
import os
import pathlib
import sys
import traceback

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
METHODS = ("variance_minimizing", "pgdt", "ibp")
RESUMED = "variance_minimizing"


def example():
    path = EXAMPLES / "train_on_hosts.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def watch(hosts):
    """Records what `hosts.Share` feeds, and checks how JAX puts it together."""
    fed = []
    item, make = hosts.Share.__getitem__, jax.make_array_from_process_local_data

    def recorded(share, step):
        x, y = item(share, step)
        fed.append(x)
        return x, y

    def checked(layout, rows, *rest):
        array = make(layout, rows, *rest)
        assert [len(s.data) for s in array.addressable_shards] == [len(rows)]
        assert len(array) == len(rows) * jax.process_count()
        return array

    hosts.Share.__getitem__ = recorded
    jax.make_array_from_process_local_data = checked
    return fed


def main():
    folder, name, *joined = sys.argv[1:]
    folder, hosts, found = pathlib.Path(folder), example(), {}
    args = hosts.parse(joined)
    distribution = hosts.join(args.coordinator, args.num_processes, args.process_id)
    fed = watch(hosts)
    alone = args.num_processes == 1
    output = folder / ("alone.keras" if alone else "joined.keras")
    given = [*joined, "--output", str(output), "--batch-size", "8"]
    given += ["--data", str(folder / "data.npz")]
    for method in METHODS:
        losses, run = [], [*given, "--method", method]
        fed.clear()
        # In two parts, the second resumed from the file of the first.
        if method == RESUMED and not alone:
            args = hosts.parse([*run, "--epochs", "1"])
            _, history = hosts.train(args, *hosts.load(args.data), distribution)
            losses += history.history["loss"]
            multihost_utils.sync_global_devices("saved")
            run.append("--resume")
        args = hosts.parse([*run, "--epochs", "2"])
        model, history = hosts.train(args, *hosts.load(args.data), distribution)
        losses += history.history["loss"]
        found[f"{method} losses"] = losses
        found[f"{method} fed"] = np.stack(fed)
        weights = [keras.ops.convert_to_numpy(w).ravel() for w in model.weights]
        found[f"{method} weights"] = np.concatenate(weights)
        found[f"{method} regularizer"] = history.history.get("regularizer", ())
    if args.process_id == 0:
        # Loaded without the other process.
        saved = keras.saving.load_model(output)
        for a, b in zip(saved.weights, model.weights, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    np.savez(folder / f"{name}.npz", **found)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        # On its way out JAX waits for the other process, for five minutes.
        sys.stderr.flush()
        os._exit(1)
