"""The only place that knows TensorFlow from JAX.

Each backend module offers the same few functions: random bits keyed by row,
seeds that nothing determines, rows by their index, parts of a forward pass at the same
time or in chunks of bounded memory, and gradients with respect to inputs.
Everything else goes through `keras.ops`.
"""

import keras

from keras_probcert.backend.stateless import frozen  # noqa: F401

if keras.backend.backend() == "tensorflow":
    from keras_probcert.backend import tensorflow as _backend
elif keras.backend.backend() == "jax":
    from keras_probcert.backend import jax as _backend
else:
    raise ImportError(
        "keras_probcert runs on the Keras backends 'tensorflow' and 'jax'. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )

random_bits = _backend.random_bits
split_seed = _backend.split_seed
total_rows = _backend.total_rows
fresh_seeds = _backend.fresh_seeds
batches = _backend.batches
is_concrete = _backend.is_concrete
forward_in_chunks = _backend.forward_in_chunks
gather = _backend.gather
while_loop = _backend.while_loop
side_by_side = _backend.side_by_side
repeat = _backend.repeat
compiled = _backend.compiled
input_gradient = _backend.input_gradient
value_and_gradient = _backend.value_and_gradient
STATIC_SHAPES = _backend.STATIC_SHAPES
