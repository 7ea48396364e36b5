"""JAX: Threefry noise, checkpointed scans over chunks."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_probcert.backend.gradient_scale import GRADIENT_SCALE
from keras_probcert.backend.stateless import stateless_call

# Every shape is fixed when a function is compiled.
STATIC_SHAPES = True

repeat = jax.lax.fori_loop


def _key(seed):
    return jax.random.wrap_key_data(seed.astype(jnp.uint32), impl="threefry2x32")


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def random_bits(seeds, first, num_copies, size, stream):
    """Random words for copies `first`, `first + 1`, … of each row.

    A word depends on its row's seed, its copy, its place in the copy and
    `stream` alone: the row's Threefry key is folded with the stream, then with
    the copy.

    Args:
        seeds: `(rows, 2)` int32.
        first: int32, `(rows,)`: the first copy of each row.
        num_copies: Python int, the number of copies of each row.
        size: Python int, words a copy.
        stream: Python int, which of the draws of a copy this is.

    Returns:
        uint32, `(rows, num_copies, size)`.
    """

    def one_copy(key, copy):
        return jax.random.bits(jax.random.fold_in(key, copy), (size,), jnp.uint32)

    def one_row(seed, first):
        key = jax.random.fold_in(_key(seed), stream)
        return jax.vmap(one_copy, (None, 0))(key, first + jnp.arange(num_copies))

    return jax.vmap(one_row)(jnp.asarray(seeds), jnp.asarray(first))


def split_seed(seed, num_rows):
    """`(num_rows, 2)` int32 seeds from one seed `(2,)`; row i's is its own."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(_key(seed), jnp.arange(num_rows))
    return jax.random.key_data(keys).astype(jnp.int32)


def gather(x, indices):
    """The rows of `x` at `indices`, which count from its start."""
    return jnp.take(x, indices, axis=0)


def total_rows(num_rows):
    """How many rows the step's batch has: JAX's arrays are global."""
    return num_rows


def fresh_seeds(num_rows):
    """`(num_rows, 2)` int32 seeds from the operating system's entropy.

    A traced JAX function has no entropy of its own, so it must be given seeds.
    """
    # Inside a trace even a constant is traced.
    if not is_concrete(jnp.zeros(())):
        raise ValueError(
            "`seed` must be given inside a JAX-transformed function, where "
            "fresh noise cannot be drawn. Received: seed=None"
        )
    words = np.random.SeedSequence().generate_state(2 * num_rows, np.uint32)
    return words.view(np.int32).reshape(num_rows, 2)


def batches(arrays, batch_size):
    """Keyword arguments that make Keras' `predict` run over `arrays` in batches."""
    if keras.config.floatx() in ("float16", "bfloat16"):
        # Keras would round the inputs to it.
        raise ValueError(
            "keras.config.floatx() must be 'float32' to predict in batches on JAX. "
            f"Received: {keras.config.floatx()!r}"
        )
    return {"x": arrays, "batch_size": batch_size}


def is_concrete(x):
    """Whether `x` has values to look at, not only a place in a trace."""
    return not isinstance(x, jax.core.Tracer)


def while_loop(cond, body, state):
    """`jax.lax.while_loop` over a tuple of arrays of constant shape."""
    return jax.lax.while_loop(lambda s: cond(*s), lambda s: tuple(body(*s)), state)


def side_by_side(function, arrays, size):
    """`function` of `arrays`: XLA shares one pass among the cores itself."""
    del size
    return function(*arrays)


def compiled(function, model, examples, jit_compile=True):
    """`function` compiled, anew for each number of rows.

    Args:
        function: takes arrays whose first axis is the rows.
        model: the built Keras model whose variables `function` reads.
        examples: arrays of the shapes and dtypes to come.
        jit_compile: of no effect, as all is compiled by XLA.
    """
    del examples, jit_compile
    variables = model.variables

    @jax.jit
    def run(values, *arrays):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arrays)

    return lambda *arrays: run([v.value for v in variables], *arrays)


def input_gradient(value, x):
    """The gradient of each row's `value` with respect to the row."""
    return jax.grad(lambda x: GRADIENT_SCALE * value(x).sum())(x) / GRADIENT_SCALE


def value_and_gradient(function, x):
    """What `function` gives at `x`, and a gradient, in one pass forward and back.

    Args:
        function: of `x` to one value a row and whatever else.
        x: array, `(rows, …)`.

    Returns:
        The values, the rest, and the gradient of each row's value with respect to
        the row.
    """

    def total(x):
        values, rest = function(x)
        return GRADIENT_SCALE * values.sum(), (values, rest)

    (_, (values, rest)), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return values, rest, gradient / GRADIENT_SCALE


def forward_in_chunks(model, draw, num_chunks, training=True):
    """Outputs of `model` on `num_chunks` chunks, holding one at a time.

    The backward pass runs each chunk again, so memory is that of one chunk and
    the price one more forward pass. The model's non-trainable state (BatchNorm
    statistics, Dropout seeds) is threaded through the chunks.

    Args:
        model: a built Keras model.
        draw: a function of the chunk's index, an int32 scalar, to the chunk's
            inputs.
        num_chunks: Python int.
        training: whether layers are in training mode.

    Returns:
        An array, `(num_chunks, rows of a chunk, …)`.
    """
    weights = [jnp.asarray(v) for v in model.trainable_variables]
    state = [jnp.asarray(v) for v in model.non_trainable_variables]

    @jax.checkpoint
    def forward(weights, state, index):
        return stateless_call(model, weights, state, draw(index), training)

    def step(state, index):
        output, state = forward(weights, state, index)
        return state, output

    state, outputs = jax.lax.scan(step, state, jnp.arange(num_chunks))
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return outputs
