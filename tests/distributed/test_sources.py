"""The same rows, whatever they come from."""

import numpy as np
import pytest

from keras_probcert.distributed.sources import Source

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (2500, 2, 3), np.uint8)
Y = RNG.integers(0, 4, 2500)


def read(source):
    x, y = zip(*source, strict=True)
    return np.concatenate(x), None if y[0] is None else np.concatenate(y)


def npz(folder):
    np.savez(folder / "all.npz", x=X, y=Y)
    return folder / "all.npz"


def folder_of_npz(folder):
    for i in range(3):
        rows = slice(i * 1000, (i + 1) * 1000)
        np.savez(folder / f"part-{i}.npz", x=X[rows], y=Y[rows])
    return folder


def folder_of_npy(folder):
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return str(folder)


def parquet(folder):
    import pyarrow as pa
    from pyarrow import parquet

    for i in range(2):
        rows = slice(i * 1250, (i + 1) * 1250)
        table = pa.table({"x": X[rows].tolist(), "y": Y[rows]})
        parquet.write_table(table, folder / f"part-{i}.parquet")
    return folder


@pytest.mark.parametrize("make", [npz, folder_of_npz, folder_of_npy, parquet])
def test_files(make, tmp_path):
    source = Source(make(tmp_path), (2, 3))
    x, y = read(source)
    np.testing.assert_array_equal(x, (X / 255).astype("float32"))
    np.testing.assert_array_equal(y, Y)
    assert source.total in (2500, None) and x.dtype == np.float32
    few = source.first(1100)
    np.testing.assert_array_equal(read(few)[0], x[:1100])
    assert few.total == 1100
    undivided = read(Source(make(tmp_path), (2, 3), divide_by=1))[0]
    np.testing.assert_array_equal(undivided, X)


def test_small_integers_are_divided_with_a_warning(tmp_path):
    np.savez(tmp_path / "digits.npz", x=np.full((3, 4), 16, "uint8"))
    with pytest.warns(UserWarning, match="integers up to 16, .* set `divide_by`"):
        x, _ = next(iter(Source(tmp_path / "digits.npz")))
    np.testing.assert_allclose(x, 16 / 255)
    x, _ = next(iter(Source(tmp_path / "digits.npz", divide_by=16)))
    np.testing.assert_array_equal(x, 1)


def test_arrays_and_batches():
    x = X.astype("float32") / 255
    batches = [(x[:1200], Y[:1200]), (x[1200:], Y[1200:])]
    for data in ((x, Y), batches_of(batches)):
        found = read(Source(data))
        np.testing.assert_array_equal(found[0], x)
        np.testing.assert_array_equal(found[1], Y)
    alone = Source(x)
    assert alone.total == 2500 and read(alone)[1] is None
    assert read(alone.first(3))[0].shape == (3, 2, 3)


class batches_of:
    """An iterable that is no list: lists are arrays."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.tensorflow
def test_tf_data():
    import tensorflow as tf

    x = X.astype("float32") / 255
    dataset = tf.data.Dataset.from_tensor_slices((x, Y)).batch(700)
    found = read(Source(dataset))
    np.testing.assert_array_equal(found[0], x)
    np.testing.assert_array_equal(found[1], Y)


def test_mnist(mnist):
    x, y = read(Source("mnist:test[:200]"))
    np.testing.assert_array_equal(x, mnist[1][0])
    np.testing.assert_array_equal(y, mnist[1][1])


def test_rows_of_different_lengths_are_not_read_across(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    ragged = [[0.1, 0.2, 0.3], [0.4]]
    missing = pa.array([[255, None], [10, 20]], pa.list_(pa.uint8()))
    for i, (column, message) in enumerate(
        ((ragged, "different lengths"), (missing, "missing values"))
    ):
        parquet.write_table(pa.table({"x": column}), tmp_path / f"{i}.parquet")
        with pytest.raises(ValueError, match=message):
            read(Source(tmp_path / f"{i}.parquet", (2,)))
    # Channels first is another shape, though as many numbers.
    image = pa.array([np.zeros((3, 2, 2)).tolist()])
    parquet.write_table(pa.table({"x": image}), tmp_path / "nested.parquet")
    with pytest.raises(ValueError, match=r"nested lists of shape \(3, 2, 2\)"):
        read(Source(tmp_path / "nested.parquet", (2, 2, 3)))
    for shape in ((3, 2, 2), (3, None, 2), (3, 2, 2, 1), None):
        x, _ = read(Source(tmp_path / "nested.parquet", shape))
        assert x.size == 12
    sequence = pa.array([np.zeros((1, 3)).tolist()])
    parquet.write_table(pa.table({"x": sequence}), tmp_path / "nested.parquet")
    assert read(Source(tmp_path / "nested.parquet", (None, 3)))[0].shape == (1, 1, 3)
    holes = pa.array([[0.5, None], [0.25, 0.5]], pa.list_(pa.float32()))
    parquet.write_table(pa.table({"x": holes}), tmp_path / "holes.parquet")
    x, _ = read(Source(tmp_path / "holes.parquet", (2,)))
    np.testing.assert_array_equal(x, [[0.5, np.nan], [0.25, 0.5]])


def test_bad_data(tmp_path):
    with pytest.raises(ValueError, match="`data` must be a .npz file"):
        Source(tmp_path)
    with pytest.raises(ValueError, match="a file that exists"):
        Source(tmp_path / "x.npz")
    for divide_by in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="`divide_by` must be a finite number .*0"):
            Source(X, divide_by=divide_by)
    with pytest.raises(ValueError, match="one label for each input"):
        Source((X[:1024], Y))
    with pytest.raises(ValueError, match="Received: data of type dict"):
        Source({"x": X})
    with pytest.raises(ValueError, match="Received: data of type list"):
        Source([1.0, 2.0])
    np.savez(tmp_path / "z.npz", z=X)
    with pytest.raises(ValueError, match="must hold inputs `x`"):
        Source(tmp_path / "z.npz")
    parquet(tmp_path)
    (tmp_path / "z.npz").unlink()
    with pytest.raises(ValueError, match=r"rows of shape \(7,\)"):
        read(Source(tmp_path, (7,)))
