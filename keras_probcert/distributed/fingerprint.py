"""Which model and test certificates are of, the same in every process."""

import hashlib
import json

import keras
import numpy as np

from keras_probcert import models


def fingerprint(certified, seed):
    """What must be the same for two runs to be parts of one, as plain data.

    Args:
        certified: the `CertifiedPredictor`.
        seed: an int or `None`.
    """
    return {
        "model": _digest(certified),
        "perturbation": repr(certified.perturbation),
        "test": repr(certified.test),
        "seed": seed,
        # Backends draw other noise from the same seed.
        "backend": keras.backend.backend(),
    }


def _digest(certified):
    """A hash of the base model's layers and weights."""
    base = models.innermost(certified.base_model)
    try:
        config = keras.saving.serialize_keras_object(base)
    except NotImplementedError:
        config = type(base).__name__  # A subclassed model that has none.
    described = json.dumps(
        [_without_names(config), certified.from_logits], sort_keys=True, default=repr
    )
    found = hashlib.sha256(described.encode())
    for weight in base.weights:
        value = np.asarray(keras.ops.convert_to_numpy(weight))
        found.update(f"{value.shape} {value.dtype}".encode() + value.tobytes())
    return found.hexdigest()[:32]


def _without_names(config):
    """`config` with numbers for layers' names, which count up in each process."""
    numbers = {}

    def collect(part):
        if isinstance(part, dict):
            if isinstance(part.get("name"), str):
                numbers.setdefault(part["name"], f"#{len(numbers)}")
            part = list(part.values())
        if isinstance(part, (list, tuple)):
            for each in part:
                collect(each)

    def renamed(part):
        if isinstance(part, dict):
            left_out = ("compile_config", "shared_object_id")
            return {k: renamed(v) for k, v in part.items() if k not in left_out}
        if isinstance(part, (list, tuple)):
            return [renamed(each) for each in part]
        return numbers.get(part, part) if isinstance(part, str) else part

    collect(config)
    return renamed(config)
