"""Which model and test certificates are of, the same in every process."""

import hashlib
import json

import keras

# Where configurations name layers, and what of them is not the model.
NAMES = ("name", "keras_history", "input_layers", "output_layers")
LEFT_OUT = ("compile_config", "shared_object_id")


def fingerprint(certified, seed):
    """What must be the same for two runs to be parts of one, as plain data.

    Args:
        certified: the `CertifiedPredictor`.
        seed: an int or `None`.
    """
    return {
        "model": _digest(certified),
        "perturbation": repr(certified.perturbation),
        "test": f"{certified.test!r} {_hash(*_times(certified.test))}",
        "seed": seed,
        # Backends draw other noise from the same seed.
        "backend": keras.backend.backend(),
    }


def _digest(certified):
    """A hash of the base model's layers and weights."""
    base = certified.base_model
    try:
        config = keras.saving.serialize_keras_object(base)
    except NotImplementedError:
        # A subclassed model that has none.
        policies = [layer.dtype_policy.name for layer in base._flatten_layers()]
        config = [type(base).__name__, *policies]
    described = json.dumps(
        [_without_names(config), certified.from_logits], sort_keys=True, default=repr
    )
    return _hash(described, *map(keras.ops.convert_to_numpy, base.weights))


def _times(test):
    """What decides, of a test whose configuration may not say all."""
    return test.certify_times, test.reject_until


def _hash(*parts):
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode())
        else:
            found.update(f"{part.shape} {part.dtype}".encode() + part.tobytes())
    return found.hexdigest()[:32]


def _without_names(config):
    """`config` with numbers for layers' names, which count up in each process."""
    numbers = {}

    def collect(part):
        if isinstance(part, dict):
            if str(part.get("class_name")).endswith("DTypePolicy"):
                return  # Its name says how the layer computes.
            if isinstance(part.get("name"), str):
                numbers.setdefault(part["name"], f"#{len(numbers)}")
            part = list(part.values())
        if isinstance(part, (list, tuple)):
            for each in part:
                collect(each)

    def renamed(part, is_name=False):
        if isinstance(part, dict):
            return {
                key: renamed(value, key in NAMES)
                for key, value in part.items()
                if key not in LEFT_OUT
            }
        if isinstance(part, (list, tuple)):
            return [renamed(each, is_name) for each in part]
        return numbers.get(part, part) if is_name and isinstance(part, str) else part

    collect(config)
    return renamed(config)
