"""Signs that what an attack says of a model is not to be trusted, as warnings."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_probcert import models
from keras_probcert.attacks.attack import without_gradient

# From Croce and Hein's code: how far sums of probabilities are from 1 and outputs of
# a deterministic model from each other, and what share of the rows Square may fool
# that nothing else did.
_ROUNDING = 1e-5
_NOISE = 1e-4
_SQUARE_SHARE = 0.002


def warn_of_probabilities(model, from_logits, x):
    """Warns of a model that gives probabilities, whether or not they are attacked."""
    activation = models.last_activation(model)
    known = (keras.activations.softmax, keras.activations.sigmoid)
    if activation in known and not from_logits:
        _warn(
            f"`model` ends in a {activation.__name__}: the logits that go into it are "
            "attacked, since probabilities lose the gradient where they round to 0 "
            "and 1."
        )
        return
    outputs = ops.convert_to_numpy(models.logits(model, from_logits)(x))
    inside = outputs.min() > -_ROUNDING and outputs.max() < 1 + _ROUNDING
    if inside and np.all(np.abs(outputs.sum(axis=1) - 1) < _ROUNDING):
        _warn(
            "What `model` gives as logits looks like probabilities, which hide "
            "gradients: if it ends in a softmax, hand in `from_logits=False`."
        )


def warn_of_randomness(logits, x, passes=5):
    """Warns of a model that gives other outputs for the same inputs."""
    outputs = [ops.convert_to_numpy(logits(x)) for _ in range(passes)]
    outputs = np.stack([o / (_lengths(o)[:, None] + 1e-10) for o in outputs])
    if _lengths(outputs - outputs[0]).max() > _NOISE:
        _warn(
            "`model` draws random numbers: use `version='rand'`, whose gradients are "
            "means over draws."
        )


def warn_of_zero_gradients(logits, x, y):
    """Warns of rows that attacks on gradients cannot move."""
    count = int(without_gradient(logits, x, y).sum())
    if count:
        _warn(
            f"The gradient of the logits is zero at {count} of {len(y)} rows: attacks "
            "that follow gradients say little about them."
        )


def warn_of_square(fooled, rows):
    """Warns where Square, without gradients, found what attacks on gradients missed."""
    if fooled > _SQUARE_SHARE * rows:
        _warn(
            f"Square fooled {fooled} of {rows} rows that withstood all attacks on "
            "gradients: the model may hide its gradients, so that an attack made for "
            "it, or more queries, would find more."
        )


def _lengths(outputs):
    return np.linalg.norm(outputs, axis=-1)


def _warn(message):
    warnings.warn(message, UserWarning, stacklevel=2)
