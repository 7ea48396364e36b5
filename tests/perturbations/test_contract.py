"""What every perturbation promises, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_probcert import (
    L0,
    L1,
    L2,
    Affine,
    Composition,
    Gaussian,
    Laplace,
    LInf,
    Perturbation,
    Rotation,
    Scale,
    Translation,
    row_seeds,
)
from keras_probcert.perturbations import GeneralizedGaussian, Noise, get

PERTURBATIONS = [
    LInf(0.1),
    LInf(0.1, clip=(-1, 2), clip_mode="intersect"),
    L2(0.5),
    L1(0.5, clip=None),
    L0(2),
    Gaussian(0.2),
    Laplace(0.2),
    GeneralizedGaussian(0.2, 40),
    Affine(0.3, 35, 0.3, fill_value=0.5),
    Translation(0.3),
    Rotation(35, fill_value=1),
    Scale(0.3, clip=None, fill_value=-7),
    Composition([Rotation(35), LInf(0.1), Composition([L0(1)])]),
]
every = pytest.mark.parametrize(
    "perturbation", PERTURBATIONS, ids=lambda p: type(p).__name__
)

# Words are equal bit for bit however they are drawn; log, cos and pow of them
# may differ by float32's rounding with the place in a vector register.
ROUNDING = 5e-7


def images(rows=7):
    return np.random.default_rng(0).random((rows, 5, 7, 3)).astype("float32")


def numpy(x):
    return ops.convert_to_numpy(x)


@every
def test_one_copy_of_each_row(perturbation):
    x = images()
    copies = numpy(perturbation(x, seed=0))
    assert copies.shape == x.shape and copies.dtype == np.float32
    assert np.isfinite(copies).all()
    assert all((copies[i] != x[i]).any() for i in range(len(x)))
    if perturbation.clip is not None:
        low, high = perturbation.clip
        assert copies.min() >= low and copies.max() <= high


@every
def test_noise_follows_the_seed(perturbation):
    x = np.repeat(images(1), 7, axis=0)
    copies = numpy(perturbation(x, seed=3))
    np.testing.assert_array_equal(copies, numpy(perturbation(x, seed=3)))
    np.testing.assert_array_equal(copies, numpy(perturbation(x, seed=row_seeds(3, 7))))
    assert len(np.unique(copies.reshape(7, -1), axis=0)) == 7
    assert (copies != numpy(perturbation(x, seed=4))).any()


@every
def test_no_seed_is_fresh_noise(perturbation):
    x = images()
    # 448 random bits: equal with probability 1e-134.
    assert (numpy(perturbation(x)) != numpy(perturbation(x))).any()


@every
def test_a_row_alone_has_the_copies_it_has_in_a_batch(perturbation):
    x, seeds = images()[:, None], row_seeds(1, 7)

    def draw(rows, num_copies, first=0):
        noise = Noise(seeds[rows], num_copies, first)
        return numpy(perturbation.sample(ops.convert_to_tensor(x[rows]), noise))

    full = draw(slice(0, 7), 3)
    assert full.shape == (7, 3, 5, 7, 3)
    for row, copy in ((0, 0), (4, 1), (6, 2)):
        alone = draw(slice(row, row + 1), 1, copy)[0, 0]
        np.testing.assert_allclose(alone, full[row, copy], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("perturbation", [LInf(0.1), L0(2), Rotation(35)], ids=repr)
def test_copies_that_differ_already_are_perturbed_one_by_one(perturbation):
    x, seeds = images(14).reshape(7, 2, 5, 7, 3), row_seeds(1, 7)
    together = numpy(perturbation.sample(ops.convert_to_tensor(x), Noise(seeds, 2)))
    for copy in range(2):
        one = ops.convert_to_tensor(x[:, copy : copy + 1])
        alone = numpy(perturbation.sample(one, Noise(seeds, 1, copy)))
        np.testing.assert_allclose(
            alone[:, 0], together[:, copy], rtol=0, atol=ROUNDING
        )


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_floats_give_float32(dtype):
    x = images().astype(dtype)
    copies = numpy(LInf(0.1)(x, seed=0))
    assert copies.dtype == np.float32
    np.testing.assert_array_equal(copies, numpy(LInf(0.1)(x.astype("float32"), seed=0)))


@every
def test_config_round_trip(perturbation):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(perturbation)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(perturbation) and repr(again) == repr(perturbation)
    assert again.get_config() == perturbation.get_config()
    assert again.clip == perturbation.clip
    np.testing.assert_array_equal(
        numpy(again(images(), seed=5)), numpy(perturbation(images(), seed=5))
    )
    assert repr(get(config)) == repr(perturbation)


@pytest.mark.tensorflow
@pytest.mark.parametrize("jit_compile", [False, True])
@every
def test_same_copies_inside_a_tensorflow_function(perturbation, jit_compile):
    import tensorflow as tf

    x, seeds = images(), row_seeds(1, 7)
    traced = tf.function(
        lambda x, seeds: perturbation(x, seeds), jit_compile=jit_compile
    )
    np.testing.assert_allclose(
        traced(x, seeds).numpy(),
        perturbation(x, seeds).numpy(),
        rtol=0,
        # Coordinates of pixels are rounded after contraction to fused
        # multiply-adds.
        atol=1e-5,
    )


@pytest.mark.tensorflow
@every
def test_a_batch_of_unknown_size(perturbation):
    import tensorflow as tf

    x, seeds = images(), row_seeds(1, 7)
    signature = [
        tf.TensorSpec((None, 5, 7, 3), tf.float32),
        tf.TensorSpec((None, 2), tf.int32),
    ]
    traced = tf.function(
        lambda x, seeds: perturbation(x, seeds), input_signature=signature
    )
    np.testing.assert_allclose(
        traced(x, seeds).numpy(), perturbation(x, seeds).numpy(), rtol=0, atol=1e-5
    )


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs the JAX backend")
@every
def test_same_copies_inside_jit(perturbation):
    import jax

    x, seeds = images(), row_seeds(1, 7)
    traced = jax.jit(lambda x, seeds: perturbation(x, seeds))
    np.testing.assert_allclose(
        np.asarray(traced(x, seeds)), np.asarray(perturbation(x, seeds)), atol=1e-5
    )


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs the JAX backend")
def test_no_seed_is_refused_inside_jit():
    import jax

    with pytest.raises(ValueError, match="`seed` must be given.*seed=None"):
        jax.jit(lambda x: LInf(0.1)(x))(images())


BAD_NUMBERS = [-0.1, float("nan"), float("inf"), "0.1", True, None, [0.1]]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "name, make",
    [
        ("epsilon", LInf),
        ("epsilon", L2),
        ("epsilon", L1),
        ("epsilon", L0),
        ("sigma", Gaussian),
        ("scale", Laplace),
        ("translation", Translation),
        ("rotation", Rotation),
        ("scale", Scale),
        ("translation", lambda v: Affine(translation=v)),
        ("rotation", lambda v: Affine(rotation=v)),
        ("scale", lambda v: Affine(scale=v)),
    ],
)
def test_bad_amounts(name, make, value):
    with pytest.raises(ValueError) as error:
        make(value)
    assert str(error.value).startswith(f"`{name}` must be")
    assert f"Received: {name}={value!r}" in str(error.value)


def test_l0_counts_coordinates():
    with pytest.raises(ValueError, match="`epsilon` must be an integer.*epsilon=1.5"):
        L0(1.5)
    x = np.zeros((2, 2, 3), "float32")
    assert (numpy(L0(6)(x, seed=0)) != x).all()
    with pytest.raises(ValueError, match="number of coordinates.*6.*epsilon=7"):
        L0(7)(x, seed=0)
    with pytest.raises(ValueError, match="`clip` must be a pair.*clip=None"):
        L0(1, clip=None)


@pytest.mark.parametrize("make", [Scale, lambda s: Affine(scale=s)])
@pytest.mark.parametrize("value", [1, 1.5])
def test_scale_must_be_below_one(make, value):
    with pytest.raises(ValueError, match=f"`scale` must be below 1.*scale={value}"):
        make(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0", True])
def test_fill_value_must_lie_in_the_range(value):
    for make in (Affine, lambda **a: Rotation(5, **a), lambda **a: Scale(0.1, **a)):
        with pytest.raises(ValueError, match=f"`fill_value` .*fill_value={value!r}"):
            make(fill_value=value)


def test_fill_value_is_free_without_a_range():
    assert Translation(0.1, clip=None, fill_value=-3).fill_value == -3
    with pytest.raises(ValueError, match="`fill_value` must be a finite number.*=inf"):
        Translation(0.1, clip=None, fill_value=float("inf"))


@pytest.mark.parametrize(
    "clip",
    [(1, 0), (0, 0), (0, float("nan")), (0, float("inf")), (0,), (0, 1, 2), 1, "ab"],
    ids=repr,
)
def test_bad_clip(clip):
    for make in (
        lambda clip: LInf(0.1, clip),
        lambda clip: L0(1, clip),
        lambda clip: Gaussian(0.1, clip),
        lambda clip: Rotation(9, clip),
        Perturbation,
    ):
        with pytest.raises(ValueError) as error:
            make(clip=clip)
        assert str(error.value).startswith("`clip` must be a pair (low, high)")
        assert f"Received: clip={clip}" in str(error.value)


def test_bad_clip_mode():
    with pytest.raises(ValueError, match="`clip_mode` must be .*clip_mode='wrap'"):
        LInf(0.1, clip_mode="wrap")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_integers_are_refused(dtype):
    with pytest.raises(ValueError, match=f"`x` must have a floating.*dtype={dtype}"):
        LInf(0.1)(np.zeros((2, 3), dtype), seed=0)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
@every
def test_values_outside_the_range_are_refused(perturbation, value):
    x = images()
    x[3, 2, 1, 0] = value
    clip = perturbation.clip
    if clip is None or clip[0] <= value <= clip[1]:
        assert np.isfinite(numpy(perturbation(x, seed=0))).all()
        return
    with pytest.raises(ValueError, match=r"`x` must lie in.*clip=\(.*Received: values"):
        perturbation(x, seed=0)
    with pytest.raises(ValueError, match="`x` must lie in"):
        perturbation(ops.convert_to_tensor(x), seed=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [(0, 1), None])
def test_values_that_are_not_finite_are_refused(clip, value):
    x = images()
    x[3, 2, 1, 0] = value
    with pytest.raises(ValueError, match="`x` must be finite.*NaN or infinite"):
        LInf(0.1, clip=clip)(x, seed=0)


@every
def test_empty_and_flat_batches_are_refused(perturbation):
    with pytest.raises(ValueError, match="`x` must hold at least one row.*empty"):
        perturbation(images()[:0], seed=0)
    with pytest.raises(ValueError, match=r"`x` must be a batch.*shape=\(3,\)"):
        perturbation(np.zeros(3, "float32"), seed=0)


@pytest.mark.parametrize("shape", [(7,), (6, 2), (8, 2), (7, 3), (7, 2, 1), (0, 2)])
def test_seeds_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="`seed` must") as error:
        LInf(0.1)(images(), seed=np.zeros(shape, "int32"))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("seed", [-1, True, 1.5, "1"], ids=repr)
def test_seeds_of_another_kind_are_refused(seed):
    with pytest.raises(ValueError, match="`seed` must.*Received: seed"):
        LInf(0.1)(images(), seed=seed)


@pytest.mark.parametrize("value", [0.1, None, "LInf", LInf], ids=repr)
def test_other_than_a_perturbation_is_refused(value):
    with pytest.raises(ValueError, match="must be a keras_probcert.Perturbation"):
        get(value)
