"""TensorFlow: Philox noise, custom gradients over chunks."""

import functools

import tensorflow as tf
from keras import ops

from keras_probcert.backend.gradient_scale import GRADIENT_SCALE
from keras_probcert.backend.stateless import stateless_call

# Outside XLA a forward batch may be as small as the work that is left.
STATIC_SHAPES = False

_PHILOX = 1

# Of parts of a forward pass; more gained nothing on two cores.
_MOST_AT_A_TIME = 8


def _keys(seeds):
    """One 64-bit Philox key a row, `(rows, 1)`, from `(rows, 2)` seeds.

    Assembled by arithmetic: XLA and the CPU kernels order the halves of a
    bitcast differently.
    """
    words = tf.cast(tf.bitcast(seeds, tf.uint32), tf.uint64)
    return words[:, :1] + words[:, 1:] * tf.constant(2**32, tf.uint64)


def random_bits(seeds, first, num_copies, size, stream):
    """Random words for copies `first`, `first + 1`, … of each row.

    A word depends on its row's seed, its copy, its place in the copy and
    `stream` alone: Philox counts from `copy * size / 4` in stream `stream`
    (four words a count).

    Args:
        seeds: `(rows, 2)` int32.
        first: int32, `(rows,)`: the first copy of each row.
        num_copies: Python int, the number of copies of each row.
        size: Python int, words a copy.
        stream: Python int, which of the draws of a copy this is.

    Returns:
        uint32, `(rows, num_copies, size)`.
    """
    padded = -(-size // 4) * 4
    keys = _keys(seeds)
    position = tf.cast(first, tf.uint64) * tf.constant(padded // 4, tf.uint64)
    counters = tf.stack(
        [position, tf.fill(tf.shape(position), tf.constant(stream, tf.uint64))],
        axis=1,
    )
    bits = tf.map_fn(
        # Words, not floats: XLA turns words into other floats than the CPU
        # kernel does.
        lambda row: tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[num_copies, padded],
            key=row[0],
            counter=row[1],
            alg=_PHILOX,
            dtype=tf.uint32,
        ),
        (keys, counters),
        fn_output_signature=tf.TensorSpec((num_copies, padded), tf.uint32),
        parallel_iterations=16,
    )
    return bits[:, :, :size] if padded != size else bits


def split_seed(seed, num_rows):
    """`(num_rows, 2)` int32 seeds from one seed `(2,)`; row i's is its own.

    Under a distribution strategy i counts through the rows of all replicas, so
    that a row has the noise it would have on one device.
    """
    first = _rows_before(num_rows)
    seeds = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([first + num_rows, 2]),
        key=_keys(tf.cast(seed, tf.uint32)[None])[0],
        counter=tf.zeros(2, tf.uint64),
        alg=_PHILOX,
        dtype=tf.int32,
    )
    return seeds[first:]


def _rows_before(num_rows):
    """How many rows of the step's batch go to the replicas before this one."""
    rows, replica = _rows_of_replicas(num_rows)
    return tf.reduce_sum(rows[:replica])


def total_rows(num_rows):
    """How many rows the step's batch has on all replicas together."""
    return tf.reduce_sum(_rows_of_replicas(num_rows)[0])


def _rows_of_replicas(num_rows):
    """The rows that go to each replica, and which replica this is."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.reshape(num_rows, (1,)), 0
    replica = context.replica_id_in_sync_group
    rows = tf.one_hot(replica, context.num_replicas_in_sync, dtype=tf.int32) * num_rows
    # Batches need not split evenly, so each replica says how many rows it has.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, rows), replica


def fresh_seeds(num_rows):
    """`(num_rows, 2)` int32 seeds that no seed, file or process determines.

    This one op draws from the operating system's entropy at every execution;
    `tf.random.uniform` and `SeedGenerator` repeat in every load of a
    SavedModel once a global seed is set. It does not compile under XLA.
    """
    return tf.raw_ops.NonDeterministicInts(
        shape=tf.stack([num_rows, 2]), dtype=tf.int32
    )


def batches(arrays, batch_size):
    """Keyword arguments that make Keras' `predict` run over `arrays` in batches.

    Autotuning is off: its thread sleeps for doubling times, and the end of a
    `predict` that took 6 s was seen to wait for it until second 10.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # A tuple, as `predict_on_batch` makes one: then both share a trace.
    dataset = tf.data.Dataset.from_tensor_slices((arrays,)).batch(batch_size)
    return {"x": dataset.with_options(options)}


def is_concrete(x):
    """Whether `x` has values to look at, not only a place in a graph."""
    return not tf.is_tensor(x) or isinstance(x, tf.__internal__.EagerTensor)


def gather(x, indices):
    """The rows of `x` at `indices`, which count from its start.

    `keras.ops.take` counts negative ones from the end, by five more operations.
    """
    return tf.gather(x, indices)


def while_loop(cond, body, state):
    """`tf.while_loop` over a tuple of tensors of constant shape."""
    return tf.while_loop(cond, body, state)


def side_by_side(function, arrays, size):
    """`function` of `arrays`, on small parts of their rows, several at the same time.

    Cores wait for each other within a layer, and all for what one does alone; with
    several parts on their way there is always work, and small ones stay in the
    caches. A GPU takes one part after the other, so there the rows stay together.

    Args:
        function: of the arrays' rows, each by itself, to an int32 vector.
        arrays: tensors with as many rows each, at least one.
        size: Python int, the rows of a part; the last has fewer than twice as many.

    Returns:
        int32, what `function` gives for all the rows, in their order.
    """
    if tf.config.list_logical_devices("GPU"):
        return function(*arrays)
    num_rows = tf.shape(arrays[0])[0]
    num_parts = tf.maximum(num_rows // size, 1)

    def one_part(part, results):
        start = size * part
        stop = tf.where(part + 1 < num_parts, start + size, num_rows)
        rows = (array[start:stop] for array in arrays)
        return part + 1, results.write(part, function(*rows))

    results = tf.TensorArray(
        tf.int32, num_parts, element_shape=(None,), infer_shape=False
    )
    _, results = tf.while_loop(
        lambda part, _: part < num_parts,
        one_part,
        (0, results),
        parallel_iterations=_MOST_AT_A_TIME,
    )
    return results.concat()


def repeat(start, stop, body, state):
    """`keras.ops.fori_loop`.

    Few turns are unrolled: outside a `tf.while_loop` the passes of a network took
    about a tenth less time.
    """
    if stop - start > 10:
        return ops.fori_loop(start, stop, body, state)
    for index in range(start, stop):
        state = body(index, state)
    return state


def compiled(function, model, examples, jit_compile=False):
    """`function` compiled for any number of rows.

    Args:
        function: takes arrays whose first axis is the rows.
        model: the built Keras model whose variables `function` reads.
        examples: arrays of the shapes and dtypes to come.
        jit_compile: whether XLA compiles it.
    """
    del model  # A graph reads variables where they are.
    signature = [tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in examples]
    # TensorFlow warns of code that is traced often, which a partial does not show.
    return tf.function(
        functools.partial(function),
        input_signature=signature,
        jit_compile=jit_compile or None,
    )


def input_gradient(value, x):
    """The gradient of each row's `value` with respect to the row."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        values = value(x)
    return _scaled_gradient(tape, values, x)


def value_and_gradient(function, x):
    """What `function` gives at `x`, and a gradient, in one pass forward and back.

    Args:
        function: of `x` to one value a row and whatever else.
        x: tensor, `(rows, …)`.

    Returns:
        The values, the rest, and the gradient of each row's value with respect to
        the row.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        values, rest = function(x)
    return values, rest, _scaled_gradient(tape, values, x)


def _scaled_gradient(tape, values, x):
    scale = tf.fill(tf.shape(values), tf.constant(GRADIENT_SCALE, values.dtype))
    gradient = tape.gradient(
        values, x, output_gradients=scale, unconnected_gradients="zero"
    )
    return gradient / GRADIENT_SCALE


def forward_in_chunks(model, draw, num_chunks, training=True):
    """Outputs of `model` on `num_chunks` chunks, holding one at a time.

    The backward pass runs each chunk again, so memory is that of one chunk and
    the price one more forward pass. The model's non-trainable state (BatchNorm
    statistics, Dropout seeds) is threaded through the chunks as values: both
    passes see the same state, and it is assigned once.

    Args:
        model: a built Keras model.
        draw: a function of the chunk's index, an int32 scalar, to the chunk's
            inputs.
        num_chunks: Python int.
        training: whether layers are in training mode.

    Returns:
        A tensor, `(num_chunks, rows of a chunk, …)`.
    """
    start = [tf.convert_to_tensor(v) for v in model.non_trainable_variables]

    def forward(weights, state, index):
        return stateless_call(model, weights, state, draw(index), training)

    @tf.custom_gradient
    def outputs_and_state(*weights):
        first, state = forward(weights, start, tf.constant(0))
        outputs = tf.TensorArray(first.dtype, num_chunks, element_shape=first.shape)
        outputs = outputs.write(0, first)

        def step(index, outputs, state):
            output, state = forward(weights, state, index)
            return index + 1, outputs.write(index, output), state

        _, outputs, state = tf.while_loop(
            lambda index, *_: index < num_chunks,
            step,
            (tf.constant(1), outputs, state),
            parallel_iterations=1,
        )

        def gradient(upstream, *_):
            def step(index, sums, state):
                with tf.GradientTape() as tape:
                    tape.watch(weights)
                    output, state = forward(weights, state, index)
                gradients = tape.gradient(
                    output,
                    weights,
                    output_gradients=upstream[index],
                    unconnected_gradients="zero",
                )
                sums = [
                    a + tf.convert_to_tensor(b)
                    for a, b in zip(sums, gradients, strict=True)
                ]
                return index + 1, sums, state

            _, sums, _ = tf.while_loop(
                lambda index, *_: index < num_chunks,
                step,
                (tf.constant(0), [tf.zeros_like(w) for w in weights], start),
                parallel_iterations=1,
            )
            return sums

        return (outputs.stack(), *state), gradient

    weights = [tf.convert_to_tensor(v) for v in model.trainable_variables]
    outputs, *state = outputs_and_state(*weights)
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return outputs
