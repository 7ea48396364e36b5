"""Noise is a function of (row seed, sample index): same bits however it is drawn.

The statistical tests state their false-alarm probability; together it is below
1e-7 (the draws are fixed, so they pass or fail for good).
"""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_probcert import row_seeds
from keras_probcert.perturbations import Noise

SIZES = [6, 50]


def words(seeds, num_copies, size, first=0, stream=1):
    """The plain uniforms of a stream: 24 bits a word, exact in float32."""
    noise = Noise(seeds, num_copies, first)
    for _ in range(stream):
        values = noise.uniform((size,))
    return ops.convert_to_numpy(values)


@pytest.mark.parametrize("size", SIZES)
def test_a_row_has_the_same_noise_alone_and_in_any_batch(size):
    seeds = row_seeds(5, 1000)
    full = words(seeds, 3, size)
    assert full.shape == (1000, 3, size)
    np.testing.assert_array_equal(words(seeds[:7], 3, size), full[:7])
    for row in (6, 999):
        np.testing.assert_array_equal(
            words(seeds[row : row + 1], 3, size), full[row : row + 1]
        )
    shuffled = np.random.default_rng(0).permutation(1000)[:50]
    np.testing.assert_array_equal(words(seeds[shuffled], 3, size), full[shuffled])


@pytest.mark.parametrize("size", SIZES)
def test_copies_are_the_same_in_any_block(size, stream=2):
    seeds = row_seeds(5, 4)
    full = words(seeds, 16, size, stream=stream)
    np.testing.assert_array_equal(words(seeds, 5, size, 5, stream), full[:, 5:10])
    for copy in (0, 5, 15):
        np.testing.assert_array_equal(
            words(seeds, 1, size, copy, stream), full[:, copy : copy + 1]
        )


@pytest.mark.parametrize("size", SIZES)
def test_each_row_may_start_at_its_own_copy(size):
    seeds, first = row_seeds(5, 4), np.array([0, 3, 7, 100_000], "int32")
    together = words(seeds, 2, size, first)
    for row in range(4):
        alone = words(seeds[row : row + 1], 2, size, int(first[row]))
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("size", SIZES)
def test_rows_copies_streams_and_places_all_differ(size):
    seeds = row_seeds(5, 20)
    values = np.stack([words(seeds, 10, size, stream=s) for s in (1, 2, 3)])
    # Up to 30,000 words of 24 bits: a few pairs collide by chance, 27 expected
    # at size 50, more than 70 with probability below 1e-11. A repeated row,
    # copy, stream or place would repeat at least 1 word in 20.
    repeats = values.size - len(np.unique(values))
    assert repeats <= (70 if size == 50 else 8)


def test_seeds_that_differ_in_one_bit_give_other_noise():
    seeds = np.array([[0, 0], [1, 0], [0, 1], [-(2**31), 0], [0, -(2**31)]], "int32")
    values = words(seeds, 1, 8)[:, 0]
    for i in range(5):
        for j in range(i):
            # Equal at one place of 8 by chance with probability 5e-7; at all 0.
            assert (values[i] != values[j]).sum() >= 7


def test_streams_are_independent_of_what_was_drawn_before():
    seeds = row_seeds(1, 3)
    one, other = Noise(seeds, 2), Noise(seeds, 2)
    one.uniform((3,))
    other.normal((17,))  # two draws
    one.uniform((99,))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(one.uniform((5,))),
        ops.convert_to_numpy(other.uniform((5,))),
    )


class Words(Noise):
    """Noise whose every word is one given word."""

    def __init__(self, word, rows=1, num_copies=1):
        super().__init__(np.zeros((rows, 2), "int32"), num_copies)
        self.word = word

    def _bits(self, size):
        shape = (self.seeds.shape[0], self.num_copies, size)
        return ops.convert_to_tensor(np.full(shape, self.word, "uint32"))


def test_uniform_reaches_zero_but_never_one():
    lowest = ops.convert_to_numpy(Words(0).uniform((3,)))
    highest = ops.convert_to_numpy(Words(2**32 - 1).uniform((3,)))
    assert (lowest == 0).all()
    np.testing.assert_array_equal(highest, np.float32(1 - 2**-24))
    assert (highest < 1).all()


@pytest.mark.parametrize("word", [0, 255, 256, 2**31, 2**32 - 1])
def test_exponential_and_normal_are_finite_at_every_word(word):
    exponential = ops.convert_to_numpy(Words(word).exponential((4,)))
    normal = ops.convert_to_numpy(Words(word).normal((4,)))
    assert np.isfinite(exponential).all() and (exponential >= 0).all()
    assert np.isfinite(normal).all()


@pytest.mark.parametrize(
    "draw, law",
    [
        (lambda noise: noise.uniform((5, 2)), stats.uniform()),
        (lambda noise: noise.uniform((10,), -3.0, 1.0), stats.uniform(-3, 4)),
        (lambda noise: noise.exponential((10,)), stats.expon()),
        (lambda noise: noise.normal((10,)), stats.norm()),
        (lambda noise: noise.normal((3, 3)), stats.norm()),
    ],
    ids=["uniform", "interval", "exponential", "normal", "odd"],
)
def test_laws(draw, law):
    """Kolmogorov-Smirnov at 1e-9 each, 100,000 numbers or nearly."""
    values = ops.convert_to_numpy(draw(Noise(row_seeds(2, 10), 1000)))
    assert stats.kstest(values.ravel(), law.cdf).pvalue > 1e-9


def test_the_two_halves_of_box_and_muller_are_independent():
    """Correlation of values and of squares; 5.5 sigma each, 1e-7 in all."""
    values = ops.convert_to_numpy(Noise(row_seeds(2, 10), 10_000).normal((2,)))
    a, b = values.reshape(-1, 2).T.astype(np.float64)
    for left, right in ((a, b), (a**2, b**2)):
        assert abs(np.corrcoef(left, right)[0, 1]) < 5.5 / np.sqrt(len(a))


@pytest.mark.tensorflow
@pytest.mark.parametrize("size", [3, 8])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_same_bits_inside_a_tensorflow_function(size, jit_compile):
    import tensorflow as tf

    seeds = row_seeds(5, 9)

    @tf.function(jit_compile=jit_compile)
    def draw(seeds, first):
        noise = Noise(seeds, 4, first)
        return noise.uniform((size,)), noise.uniform((size,))

    compiled = draw(tf.constant(seeds), tf.constant(5))
    for stream, values in enumerate(compiled, start=1):
        np.testing.assert_array_equal(values.numpy(), words(seeds, 4, size, 5, stream))


@pytest.mark.tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_same_bits_inside_a_tensorflow_loop(jit_compile):
    import tensorflow as tf

    seeds = row_seeds(5, 6)

    @tf.function(jit_compile=jit_compile)
    def draw(seeds):
        def body(step, blocks):
            values = Noise(seeds, 4, step * 4).uniform((5,))
            return step + 1, tf.tensor_scatter_nd_update(blocks, [[step]], values[None])

        blocks = tf.zeros((4, 6, 4, 5))
        return tf.while_loop(lambda step, _: step < 4, body, (0, blocks))[1]

    blocks = draw(tf.constant(seeds)).numpy()
    np.testing.assert_array_equal(
        blocks.transpose(1, 0, 2, 3).reshape(6, 16, 5), words(seeds, 16, 5)
    )


@pytest.mark.tensorflow
def test_same_bits_for_a_batch_of_unknown_size():
    import tensorflow as tf

    seeds = row_seeds(5, 9)

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.int32)])
    def draw(seeds):
        return Noise(seeds, 4).uniform((3,))

    np.testing.assert_array_equal(draw(seeds).numpy(), words(seeds, 4, 3))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs the JAX backend")
def test_same_bits_inside_jit_and_a_jax_loop():
    import jax
    import jax.numpy as jnp

    seeds = row_seeds(5, 6)

    @jax.jit
    def draw(seeds):
        def body(step, blocks):
            return blocks.at[step].set(Noise(seeds, 4, step * 4).uniform((5,)))

        return jax.lax.fori_loop(0, 4, body, jnp.zeros((4, 6, 4, 5)))

    blocks = np.asarray(draw(jnp.asarray(seeds)))
    np.testing.assert_array_equal(
        blocks.transpose(1, 0, 2, 3).reshape(6, 16, 5), words(seeds, 16, 5)
    )
