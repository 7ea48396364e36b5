"""Trains by any method on several hosts, or on all devices of one.

Several hosts need JAX (Keras does not train on several under TensorFlow). Start the
same command on each, with the same arguments but its own `--process-id`; process 0
also answers at the coordinator's address:

    export KERAS_BACKEND=jax
    hosts="--coordinator 10.0.0.1:1234 --num-processes 2"
    python examples/train_on_hosts.py --data mnist $hosts --process-id 0  # 10.0.0.1
    python examples/train_on_hosts.py --data mnist $hosts --process-id 1  # the other

One host trains on all its devices, under either backend:

    python examples/train_on_hosts.py --data mnist

**Rows.** Every process draws the same order of the rows, and feeds of each batch of
`--batch-size` only the rows of its own devices: of two hosts alike, the first half
and the second. So each needs the whole data set to take them from, and any number of
hosts trains on the same batches. The noise of a row belongs to its place in the whole
batch, and so the weights are those of one process, to rounding.

**Saving and resuming.** Process 0 saves the model to `--output` after each epoch. If
a process dies, the others stop too, some minutes later. Put the file where all
processes see it, and start all of them again with the same arguments and `--resume`.

**Data.** scikit-learn's digits by default; `mnist`, through TensorFlow Datasets; or a
file.npz with images `x` `(rows, height, width, channels)` in [0, 1] and classes `y`.
"""

import argparse
import contextlib
import inspect
import os
import pathlib
import zlib

import keras
import numpy as np

from keras_probcert import LInf, training
from keras_probcert.architectures import basic_convnet


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--method", default="variance_minimizing", choices=training.METHODS
    )
    parser.add_argument("--data", default="digits", help="digits, mnist or a file.npz")
    parser.add_argument("--epsilon", type=float, default=0.1, help="L∞ radius")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default="model.keras")
    parser.add_argument("--resume", action="store_true", help="go on from --output")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    parser.add_argument("--num-processes", type=int, help="one a host")
    parser.add_argument("--process-id", type=int, help="from 0")
    args = parser.parse_args(arguments)

    hosts = (args.coordinator, args.num_processes, args.process_id)
    if hosts == (None, None, None):
        args.num_processes, args.process_id = 1, 0
    elif None in hosts:
        parser.error(
            "--coordinator, --num-processes and --process-id go together: give all "
            "three, or none on a single host"
        )
    elif keras.backend.backend() != "jax":
        parser.error(
            "several hosts need KERAS_BACKEND=jax. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    elif ":" not in args.coordinator:
        parser.error(f"--coordinator must be HOST:PORT. Received: {args.coordinator}")
    if not 0 <= args.process_id < args.num_processes:
        parser.error(
            f"--process-id must be 0 to {args.num_processes - 1}, one of "
            f"--num-processes {args.num_processes}. Received: {args.process_id}"
        )
    for name in ("epochs", "batch_size"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            parser.error(f"--{option} must be positive: {getattr(args, name)}")
    if args.output.suffix != ".keras":
        parser.error(f"--output must be a .keras file. Received: {args.output}")
    if args.resume and not args.output.exists():
        parser.error(f"--resume needs the file {args.output}, which is not there")
    return args


def load(data):
    """Images in [0, 1] and classes."""
    if data == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return (digits.images[..., None] / 16).astype("float32"), digits.target
    if data == "mnist":
        import tensorflow_datasets as tfds

        x, y = tfds.as_numpy(
            tfds.load("mnist", split="train", batch_size=-1, as_supervised=True)
        )
        return x.astype("float32") / 255, y
    with np.load(data) as file:
        if not {"x", "y"} <= set(file):
            raise ValueError(f"{data} must hold `x` and `y`. Received: {list(file)}")
        x, y = file["x"], file["y"]
    classes = np.issubdtype(y.dtype, np.integer) and y.shape == x.shape[:1]
    if x.ndim != 4 or not classes or not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"{data} must hold images `x` (rows, height, width, channels) in [0, 1] "
            f"and integer classes `y` (rows,). Received: x{x.shape} from {x.min()} to "
            f"{x.max()}, y{y.shape} of {y.dtype}"
        )
    return x.astype("float32"), y


def join(coordinator=None, num_processes=1, process_id=0):
    """What distributes training: over all hosts' devices, or all of this one's.

    Must be called before anything is computed. Where there is but one device,
    nothing is distributed: `None`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy()
    if coordinator is not None:
        import jax

        # Of no effect where the devices are not CPUs.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(coordinator, num_processes, process_id)
    if len(keras.distribution.list_devices()) == 1:
        return None
    # Keras can only divide a tf.data.Dataset; `Share` has divided already.
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def own_places(distribution, batch_size):
    """The places in a batch of which this process feeds the rows."""
    places = np.arange(batch_size)
    if distribution is None:
        return places
    tensorflow = keras.backend.backend() == "tensorflow"
    devices = (
        distribution.num_replicas_in_sync
        if tensorflow
        else distribution.num_model_replicas
    )
    if batch_size % devices:
        raise ValueError(
            f"--batch-size must be a multiple of the {devices} devices. "
            f"Received: {batch_size}"
        )
    if tensorflow:
        return places
    layout = distribution.get_data_layout(places.shape).backend_layout
    parts = layout.addressable_devices_indices_map(places.shape).values()
    return np.sort(np.concatenate([places[part] for part in parts]))


class Share(keras.utils.PyDataset):
    """This process' rows of each batch.

    The order of the rows depends on the seed and the epoch alone, so that all
    processes draw the same, and a resumed run too. What is left after the last whole
    batch sits the epoch out.
    """

    def __init__(self, x, y, batch_size, places, seed):
        super().__init__()
        if len(x) < batch_size:
            raise ValueError(
                f"--batch-size must be at most the {len(x)} rows of the data. "
                f"Received: {batch_size}"
            )
        self.x, self.y, self.places, self.seed = x, y, places, seed
        self.batch_size = batch_size
        self.shuffle(0)

    def shuffle(self, epoch):
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.x))
        steps = len(self.x) // self.batch_size
        batches = order[: steps * self.batch_size].reshape(steps, self.batch_size)
        self.rows = batches[:, self.places]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, step):
        return self.x[self.rows[step]], self.y[self.rows[step]]


class Save(keras.callbacks.Callback):
    """Saves after each epoch; a process killed meanwhile leaves the last one's file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        unfinished = self.path.with_suffix(".unfinished.keras")
        # Saving makes variables, which under a distribution is for all processes.
        distribution = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            self.model.save(unfinished)
        finally:
            keras.distribution.set_distribution(distribution)
        os.replace(unfinished, self.path)


def new_model(args, x, y):
    """A compiled model, its radius `--epsilon` after half of the epochs."""
    keras.utils.set_random_seed(args.seed)
    method = training.get(args.method)
    known = inspect.signature(method).parameters
    arguments = {}
    if "perturbation" in known:
        arguments["perturbation"] = LInf(args.epsilon)
    if "epsilon" in known:
        # From the first step at the full radius, training may stay at a constant.
        ramp = training.LinearRamp(0.0, args.epsilon, length=args.epochs / 2)
        arguments["epsilon"] = ramp
    model = method(basic_convnet(x.shape[1:], int(y.max()) + 1), **arguments)
    model.compile(
        keras.optimizers.Adam(1e-3, clipnorm=10.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def check_agreement(args, x, y):
    """That all processes were given the same, without which they train nonsense."""
    if args.num_processes == 1:
        return
    from jax.experimental import multihost_utils

    own = ("coordinator", "process_id", "output")
    settings = {name: v for name, v in vars(args).items() if name not in own}
    given = {
        "arguments": repr(settings).encode(),
        "images": np.ascontiguousarray(x),
        "classes": np.ascontiguousarray(y),
        "file to resume from": args.output.read_bytes() if args.resume else b"",
    }
    marks = np.asarray([zlib.crc32(data) for data in given.values()], np.uint32)
    everyone = multihost_utils.process_allgather(marks)
    for name, marks in zip(given, everyone.T, strict=True):
        if (marks != marks[0]).any():
            raise ValueError(
                f"all processes must be given the same {name}. Received: those of "
                f"process {np.argmax(marks != marks[0])} differ from those of process 0"
            )


def train(args, x, y, distribution):
    """Trains, and saves if this is process 0.

    Args:
        args: what `parse` gives.
        x: all images, `(rows, height, width, channels)`, in [0, 1].
        y: their classes.
        distribution: what `join` gives.

    Returns:
        The trained model and Keras' `History`.
    """
    check_agreement(args, x, y)
    share = Share(
        x, y, args.batch_size, own_places(distribution, args.batch_size), args.seed
    )
    with distribution.scope() if distribution else contextlib.nullcontext():
        if args.resume:
            model = keras.saving.load_model(args.output)
        else:
            model = new_model(args, x, y)
        done = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
        epoch, rest = divmod(done, len(share))
        if rest or not isinstance(model, training.get(args.method)):
            raise ValueError(
                f"{args.output} was not trained with these arguments, so --resume "
                "cannot go on from it"
            )
        first = args.process_id == 0
        callbacks = [
            keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: share.shuffle(epoch)
            )
        ]
        if first:
            callbacks.append(Save(args.output))
        history = model.fit(
            share,
            initial_epoch=epoch,
            epochs=args.epochs,
            shuffle=False,
            verbose=2 if first else 0,
            callbacks=callbacks,
        )
    return model, history


def main():
    args = parse()
    distribution = join(args.coordinator, args.num_processes, args.process_id)
    x, y = load(args.data)
    train(args, x, y, distribution)


if __name__ == "__main__":
    main()
