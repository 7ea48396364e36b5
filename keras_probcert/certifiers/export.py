"""A SavedModel that serves certificates, with no Python of ours inside."""

import keras
import tensorflow as tf

from keras_probcert import models
from keras_probcert.certifiers import voting


def export(certified, filepath, invalid="error"):
    """Writes `certified` as a TensorFlow SavedModel with its signatures.

    - `serving_default(inputs)`: what `CertifiedPredictor.predict` returns. Its
      noise is not determined by the file: it differs between requests, loads
      and processes, so nobody can foretell it from the model.
    - `seeded(inputs, seed)`: the same with one int32 seed `(rows, 2)` a row, for
      audits: a row's result is repeatable, alone or in any batch.
    - `budgeted(inputs, max_samples, max_passes)`, of a `CertifiedPredictor`:
      `serving_default` within bounds, int32 `(rows,)` each: the most votes of a row,
      and the most forward passes, of the predictor's `forward_batch_size` copies, in
      which it takes part or waits. A row whose budget ends is undecided. A batch
      takes no more passes than the largest number among its rows.
    - `seeded_budgeted(inputs, seed, max_samples, max_passes)`: both. Votes depend on
      the seed and on how many were taken alone: any answer is repeated by its
      `num_samples` as `max_samples` and enough passes.
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
        ValueError: if `invalid` is something else, the model was never built, or it
            takes rows of several shapes.
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
    if None in shape:
        raise ValueError(
            "`model` must take rows of a fixed shape to be exported. "
            f"Received: rows of shape {shape}"
        )
    if not certified.built:
        # The base model was built after it was wrapped.
        certified.build((None, *shape))
    clip = certified.perturbation.clip
    where = "" if clip is None else f" and lie in [{clip[0]:g}, {clip[1]:g}]"

    inputs = tf.TensorSpec((None, *shape), tf.float32, name="inputs")
    seed = tf.TensorSpec((None, 2), tf.int32, name="seed")
    budget = [tf.TensorSpec((None,), tf.int32, name=n) for n in certified.budgets]

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

    def one_each(inputs, spec, value, what):
        # Too many would pass, and a GPU reads zeros past the end of too few.
        value = tf.ensure_shape(value, spec.shape)
        right = tf.debugging.Assert(
            tf.equal(tf.shape(value)[0], tf.shape(inputs)[0]),
            [f"{spec.name} must hold one {what} for each row of inputs"],
        )
        with tf.control_dependencies([right]):
            return tf.identity(value)

    def answer(inputs, seed_of_row=None, **budget_of_row):
        inputs, _ = check(inputs)
        asked = {"inputs": inputs, "seed": None}
        if seed_of_row is not None:
            asked["seed"] = one_each(inputs, seed, seed_of_row, "int32 pair")
        for spec in budget if budget_of_row else ():
            asked[spec.name] = one_each(
                inputs, spec, budget_of_row[spec.name], "int32 number"
            )
        return certified(asked)

    def serving_default(inputs):
        return answer(inputs)

    def seeded(inputs, seed):
        return answer(inputs, seed)

    def budgeted(inputs, max_samples, max_passes):
        return answer(inputs, max_samples=max_samples, max_passes=max_passes)

    def seeded_budgeted(inputs, seed, max_samples, max_passes):
        return answer(inputs, seed, max_samples=max_samples, max_passes=max_passes)

    def base(inputs):
        inputs, valid = check(inputs)
        outputs = certified.base_model(inputs, training=False)
        return {"outputs": tf.where(valid[:, None], outputs, float("nan"))}

    archive = keras.export.ExportArchive()
    # All variables are the base's; the predictor itself would add a signature.
    archive.track(certified.base_model)
    # XLA drops assertions and cannot draw fresh seeds.
    jit_compile, certified.jit_compile = certified.jit_compile, False
    endpoints = [
        (serving_default, [inputs]),
        (seeded, [inputs, seed]),
        (base, [inputs]),
    ]
    if budget:
        endpoints += [
            (budgeted, [inputs, *budget]),
            (seeded_budgeted, [inputs, seed, *budget]),
        ]
    try:
        for function, signature in endpoints:
            endpoint = archive.add_endpoint(function.__name__, function, signature)
            if function is not base:
                # Keras would trace it once more, to find no variables but those of
                # `base`: TensorFlow traces what it saves anew.
                endpoint.concrete_functions = []
        archive.write_out(filepath, verbose=False)
    finally:
        certified.jit_compile = jit_compile
