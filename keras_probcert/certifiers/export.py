"""A SavedModel that serves certificates, with no Python of ours inside."""

import keras
import tensorflow as tf

from keras_probcert import models
from keras_probcert.certifiers import voting


def export(certified, filepath, invalid="error"):
    """Writes `certified` as a TensorFlow SavedModel with three signatures.

    - `serving_default(inputs)`: what `CertifiedPredictor.predict` returns. Its
      noise is not determined by the file: it differs between requests, loads
      and processes, so nobody can foretell it from the model.
    - `seeded(inputs, seed)`: the same with one int32 seed `(rows, 2)` a row, for
      audits: a row's result is repeatable, alone or in any batch.
    - `base(inputs)`: the base model's plain outputs, as `outputs`.

    Every input and output has the row dimension, so TF Serving may merge
    requests into batches.

    Args:
        certified: a built `CertifiedPredictor`.
        filepath: the folder to write.
        invalid: `"error"`: a request with a row that is NaN, infinite or outside
            the perturbation's `clip` is answered INVALID_ARGUMENT; `"refuse"`:
            such a row alone gets the decision `REFUSED` (and, from `base`, NaN).

    Raises:
        ValueError: if `invalid` is something else, or the model was never built.
    """
    if invalid not in ("error", "refuse"):
        raise ValueError(
            f"`invalid` must be 'error' or 'refuse'. Received: invalid={invalid!r}"
        )
    shape = models.row_shape(certified.base_model)
    if shape is None:
        raise ValueError(
            "`model` must be built before it is exported: call it on a batch. "
            "Received: a model without a known input shape"
        )
    if not certified.built:
        # The base model was built after it was wrapped.
        certified.build((None, *shape))
    clip = certified.perturbation.clip
    where = "" if clip is None else f" and lie in [{clip[0]:g}, {clip[1]:g}]"

    inputs = tf.TensorSpec((None, *shape), tf.float32, name="inputs")
    seed = tf.TensorSpec((None, 2), tf.int32, name="seed")

    def check(x):
        # A runtime does not hold requests to the signature, and a row of another
        # shape may broadcast against its noise.
        x = tf.ensure_shape(x, inputs.shape)
        valid = voting.row_is_valid(x, clip)
        if invalid == "error":
            tf.debugging.Assert(
                tf.logical_and(tf.reduce_all(valid), tf.shape(x)[0] > 0),
                [f"inputs must hold at least one row, be finite{where}"],
            )
        return x, valid

    def serving_default(inputs):
        inputs, _ = check(inputs)
        return certified(inputs)

    def seeded(inputs, seed):
        inputs, _ = check(inputs)
        seed = tf.ensure_shape(seed, (None, 2))
        # Too many seeds would pass, and a GPU reads zeros past the end of too few.
        one_each = tf.debugging.Assert(
            tf.equal(tf.shape(seed)[0], tf.shape(inputs)[0]),
            ["seed must hold one int32 pair for each row of inputs"],
        )
        with tf.control_dependencies([one_each]):
            return certified(inputs, seed=tf.identity(seed))

    def base(inputs):
        inputs, valid = check(inputs)
        outputs = certified.base_model(inputs, training=False)
        return {"outputs": tf.where(valid[:, None], outputs, float("nan"))}

    archive = keras.export.ExportArchive()
    # All variables are the base's; the predictor itself would add a signature.
    archive.track(certified.base_model)
    # XLA drops assertions and cannot draw fresh seeds.
    jit_compile, certified.jit_compile = certified.jit_compile, False
    try:
        for function, signature in (
            (serving_default, [inputs]),
            (seeded, [inputs, seed]),
            (base, [inputs]),
        ):
            archive.add_endpoint(function.__name__, function, signature)
        archive.write_out(filepath, verbose=False)
    finally:
        certified.jit_compile = jit_compile
