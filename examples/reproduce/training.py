"""Trains a model by its configuration, once: cached by its hash, resumed by epochs."""

import hashlib
import json
import os
import time

import keras
import numpy as np
from datasets import load
from settings import CLASSES, SHI, SHI_CIFAR, arguments_and_cost, epsilon_of

from keras_probcert import Affine, LInf, Rotation, Scale, Translation, architectures
from keras_probcert.training import LinearRamp, SmoothedRamp, get, initialize_for_ibp


def vicinity_of(kind, amount=None):
    """A `Perturbation` by its name; Table 6's bounds but for "linf"."""
    return {
        "linf": lambda: LInf(amount),
        "translation": lambda: Translation(0.3),
        "rotation": lambda: Rotation(35),
        "scale": lambda: Scale(0.3),
        "affine": lambda: Affine(translation=0.3, rotation=35, scale=0.3),
    }[kind]()


def plan(method, dataset, size, vicinity, seed, points=None, **arguments):
    """The configuration of a training: all that its result depends on, as plain data.

    Args:
        method: its name.
        dataset: its name.
        size: a `Size`.
        vicinity: what `vicinity_of` takes.
        seed: an int.
        points: keep the model at so many times during training.
        **arguments: of the method, beside the settings'.
    """
    found, cost = arguments_and_cost(method, size, dataset, vicinity)
    images = size.train or len(load(dataset, "train")[0])
    recipe = size.recipe
    if method == "ibp" and size.rows is None:
        recipe = SHI if epsilon_of(dataset) > 0.1 else SHI_CIFAR
    recipe = dict(recipe)
    batch_size = recipe.get("batch_size") or max(32, recipe["batch_rows"] // cost)
    examples = size.rows // cost if size.rows else recipe["epochs"] * images
    epochs = recipe.get("epochs") or max(1, round(examples / images))
    if points:
        if "drops" in recipe:
            recipe["drops"] = [drop * points / epochs for drop in recipe["drops"]]
        epochs = points
    return {
        "method": method,
        "dataset": dataset,
        "images": images,
        "network": size.networks.get(method, size.networks[""]),
        "arguments": {**found, **arguments},
        "ramp": size.ramp,
        "recipe": recipe,
        "batch_size": batch_size,
        # An epoch is a part of the stream of examples, and where training can resume.
        "epochs": epochs,
        "steps": max(1, examples // epochs // batch_size),
        "points": points,
        "augment": size.augment,
        "seed": seed,
    }


def train(config, folder, progress):
    """Trains what `config` says, or finds it in `folder`.

    Args:
        config: what `plan` returned.
        folder: `<hash>.keras` and `<hash>.json` are written to it.
        progress: a function of the epoch and of the number of epochs.

    Returns:
        The base model, and a dict with the seconds and the history.
    """
    key = digest(config)
    final, record = folder / f"{key}.keras", folder / f"{key}.json"
    if record.exists():
        return keras.saving.load_model(final), json.loads(record.read_text())
    folder.mkdir(exist_ok=True)
    checkpoint, log = folder / f"{key}.checkpoint.keras", folder / f"{key}.log"
    if checkpoint.exists():
        model = keras.saving.load_model(checkpoint)
        epoch = int(model.optimizer.iterations) // config["steps"]
        history = json.loads(log.read_text())[:epoch]
    else:
        keras.utils.set_random_seed(config["seed"])
        model, epoch, history = _compiled(config), 0, []
    while epoch < config["epochs"]:
        x, y = _examples(config, epoch)
        clock = _Clock()
        logs = model.fit(
            *(x, y),
            batch_size=config["batch_size"],
            shuffle=False,
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=[clock],
            verbose=0,
        ).history
        history.append(
            {"seconds": clock.seconds}
            | {name: float(values[-1]) for name, values in logs.items()}
        )
        epoch += 1
        if config["points"]:
            _save(model.base_model, folder / f"{key}-{epoch}.keras")
        write_json(log, history)
        _save(model, checkpoint)
        progress(epoch, config["epochs"])
    _save(model.base_model, final)
    found = {
        "config": config,
        "seconds": sum(logs["seconds"] for logs in history),
        "history": history,
    }
    write_json(record, found)
    # Another process may have finished the same training.
    checkpoint.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    return model.base_model, found


class _Clock(keras.callbacks.Callback):
    """The seconds of an epoch, whose first step, which may compile, is taken for
    one like the others."""

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if batch == 0:
            self.start, self.seconds = now, 0.0
        else:
            self.seconds = (now - self.start) * (batch + 1) / batch


def _compiled(config):
    x = load(config["dataset"], "train")[0]
    network = getattr(architectures, config["network"])
    base = network(x.shape[1:], CLASSES.get(config["dataset"], 10))
    arguments = dict(config["arguments"])
    if "perturbation" in arguments:
        arguments["perturbation"] = vicinity_of(*arguments["perturbation"])
    length = config["epochs"] * config["ramp"]
    if config["method"] == "ibp":
        initialize_for_ibp(base, seed=config["seed"])
        length = config["recipe"].get("ramp", length)
        arguments["epsilon"] = SmoothedRamp(arguments["epsilon"], length)
    elif "epsilon" in arguments:
        # From the first step at the full radius, training may stay at a constant.
        arguments["epsilon"] = LinearRamp(0.0, arguments["epsilon"], length)
    model = get(config["method"])(base, **arguments)
    model.compile(
        _optimizer(config),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # XLA is slower for convolutions on CPUs.
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def _optimizer(config):
    recipe, steps = config["recipe"], config["steps"]
    rate = recipe["learning_rate"]
    if recipe.get("decay") == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps * config["epochs"])
    elif "drops" in recipe:
        factor = recipe.get("drop", 0.1)
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(epoch * steps) for epoch in recipe["drops"]],
            [rate * factor**i for i in range(len(recipe["drops"]) + 1)],
        )
    given = ("momentum", "weight_decay", "clipnorm", "rho", "epsilon")
    return {
        "adam": keras.optimizers.Adam,
        "adadelta": keras.optimizers.Adadelta,
        "sgd": keras.optimizers.SGD,
    }[recipe["optimizer"]](rate, **{k: recipe[k] for k in given if k in recipe})


def _examples(config, epoch):
    """An epoch's rows of the endless stream of shuffled passes over the images."""
    x, y = load(config["dataset"], "train")
    images = config["images"]
    length = config["steps"] * config["batch_size"]
    wanted = epoch * length + np.arange(length)
    order = np.empty(len(wanted), int)
    for number in np.unique(wanted // images):
        shuffled = np.random.default_rng((config["seed"], number)).permutation(images)
        here = wanted // images == number
        order[here] = shuffled[wanted[here] % images]
    x, y = x[order], y[order]
    if config["augment"]:
        x = _shifted_and_mirrored(x, np.random.default_rng((config["seed"], 1, epoch)))
    return x, y


def _shifted_and_mirrored(x, rng, most=4):
    """Images shifted by up to `most` pixels either way, half of them mirrored."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (most, most), (most, most), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (height, width), axis=(1, 2)
    )
    top, left = rng.integers(0, 2 * most + 1, (2, len(x)))
    shifted = np.moveaxis(windows[np.arange(len(x)), top, left], 1, -1)
    mirrored = rng.random(len(x)) < 0.5
    return np.where(mirrored[:, None, None, None], shifted[:, :, ::-1], shifted)


def digest(value):
    """The hash of plain data."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path, value):
    """Writes all of a file or nothing of it."""
    temporary = path.with_name(f"tmp-{path.name}")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)


def _save(model, path):
    temporary = path.with_name(f"tmp-{path.name}")
    model.save(temporary)
    os.replace(temporary, path)
