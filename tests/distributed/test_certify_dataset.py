"""Every row once, with the certificate that `predict` gives it, come what may."""

import json

import keras
import numpy as np
import pytest
from pyarrow import parquet

from keras_probcert import (
    L2,
    CertifiedPredictor,
    Decision,
    ExactTest,
    LInf,
    certify_dataset,
    load_certificates,
)
from keras_probcert.distributed.fingerprint import fingerprint
from keras_probcert.distributed.local_pool import LocalPool
from keras_probcert.distributed.worker import Worker

ROWS = 300


@pytest.fixture
def run(predictor):
    """`certify_dataset` in small tasks and files."""

    def call(data, output, **kwargs):
        settings = {"seed": 7, "batch_size": 40, "rows_a_file": 50, **kwargs}
        return certify_dataset(predictor, data, output, verbose=0, **settings)

    return call


def test_predicts_certificates(assert_all_there, run, data, expected, tmp_path):
    assert {0, 1, 2} <= set(expected["decision"]) | {0}
    found = run(data, tmp_path)
    certificates = assert_all_there(tmp_path)
    np.testing.assert_array_equal(certificates["y"], data[1])
    right = expected["certified"] & (expected["label"] == data[1])
    assert found["rows"] == found["new_rows"] == ROWS and found["seed"] == 7
    assert found["certified"] == expected["certified"].sum()
    assert found["certified_robust_accuracy"] == pytest.approx(right.mean())
    assert found["votes"] == expected["num_samples"].sum()
    files = sorted((tmp_path / "certificates").iterdir())
    assert len(files) > 3
    table = parquet.read_table(tmp_path / "certificates")
    assert table.num_rows == ROWS
    version = json.loads((tmp_path / "run.json").read_text())["library_version"]
    assert set(table.column("library_version").to_pylist()) == {version}


def test_a_run_that_is_stopped_goes_on(
    assert_all_there, run, data, tmp_path, monkeypatch
):
    """Stopped three times."""
    turn, stops = LocalPool.wait, 0
    calls = iter(range(10**6))

    def wait(pool):
        if next(calls) in (2, 4, 9):
            raise KeyboardInterrupt
        return turn(pool)

    monkeypatch.setattr(LocalPool, "wait", wait)
    for _ in range(4):
        try:
            found = run(data, tmp_path, seed=None if stops else 7)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 3 and found["rows"] == ROWS > found["new_rows"]
    assert_all_there(tmp_path)
    # Nothing is left to do, and nothing is done.
    monkeypatch.setattr(LocalPool, "start", None)
    assert run(data, tmp_path)["new_rows"] == 0


def test_a_lost_worker_costs_votes_and_no_row(
    assert_all_there, run, data, tmp_path, monkeypatch
):
    turn, lost = LocalPool.wait, []

    def wait(pool):
        rows, results = turn(pool)
        if len(lost) < 4 and rows.losses.max() < 2:
            lost.append(rows.id)
            return rows, None
        return rows, results

    monkeypatch.setattr(LocalPool, "wait", wait)
    run(data, tmp_path)
    assert len(lost) == 4
    assert_all_there(tmp_path)


def test_rows_that_every_worker_dies_of(run, data, tmp_path, monkeypatch):
    def wait(pool):
        (rows, _), pool._task = pool._task, None
        return rows, None

    monkeypatch.setattr(LocalPool, "wait", wait)
    with pytest.raises(RuntimeError, match="3 workers died with the same rows"):
        run(data, tmp_path)


def test_a_bad_row_is_refused_alone(run, data, expected, tmp_path):
    x = data[0].copy()
    bad = [3, 100, 299]
    x[bad, 1] = [np.nan, np.inf, 1.5]
    found = run((x, data[1]), tmp_path)
    assert found["refused"] == 3 and found["rows"] == ROWS
    certificates = load_certificates(tmp_path)
    good = np.setdiff1d(np.arange(ROWS), bad)
    for name, value in expected.items():
        np.testing.assert_array_equal(certificates[name][good], value[good])
    assert (certificates["decision"][bad] == Decision.REFUSED).all()
    assert not certificates["certified"][bad].any()
    assert (certificates["votes"][bad] == 0).all()


def test_another_run_is_refused(make_predictor, run, data, tmp_path):
    x, y = data
    run((x[:60], y[:60]), tmp_path)
    for settings in ({"scale": 7.0}, {"perturbation": L2(0.2)}, {"kappa": 0.1}):
        with pytest.raises(ValueError, match="`output` must be .* the same run"):
            certify_dataset(make_predictor(**settings), x, tmp_path, verbose=0)
    with pytest.raises(ValueError, match="another seed: 7, not 8"):
        run(data, tmp_path, seed=8)
    with pytest.raises(ValueError, match="another input in row 0"):
        run((x[::-1], y), tmp_path)
    with pytest.raises(ValueError, match="all rows that are in `output`"):
        run((x[:50], y[:50]), tmp_path)
    # Of an iterable the number of rows is known at its end.
    with pytest.raises(ValueError, match="all rows that are in `output`.* 50 rows"):
        run(iter([(x[:50], y[:50])]), tmp_path)
    # More rows of the same data are the same run.
    assert run(data, tmp_path)["new_rows"] == ROWS - 60
    with pytest.raises(ValueError, match="another label .or none. in row 0"):
        run(x, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="certificates and no run.json"):
        run(data, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="another model: None"):
        run(data, tmp_path)
    part = tmp_path / "certificates" / "part-000000.parquet"
    part.with_name("part-000077.parquet").write_bytes(part.read_bytes())
    with pytest.raises(ValueError, match="new or empty folder"):
        run(data, tmp_path / "certificates")


def test_rows_that_are_there_twice_are_no_run(data, run, tmp_path):
    run((data[0][:60], data[1][:60]), tmp_path)
    part = tmp_path / "certificates" / "part-000000.parquet"
    part.with_name("part-000077.parquet").write_bytes(part.read_bytes())
    with pytest.raises(ValueError, match="must hold each row once"):
        run(data, tmp_path)


def test_a_run_that_certified_nothing_binds_nobody(data, run, make_predictor, tmp_path):
    with pytest.raises(ValueError, match="floating-point dtype"):
        run((data[0] > 0.5).astype(int), tmp_path)
    # Killed while it wrote what it is.
    (tmp_path / ".run.json").write_text("{")
    other = make_predictor(kappa=0.1)
    found = certify_dataset(other, data[0][:5], tmp_path, seed=3, verbose=0)
    assert found["rows"] == 5 and found["seed"] == 3


def test_some_labels_and_empty_batches(data, run, tmp_path):
    class Batches:
        def __iter__(self):
            yield data[0][:50], data[1][:50]
            yield data[0][:0], data[1][:0]
            yield (data[0][50:100],)

    found = run(Batches(), tmp_path)
    certificates = load_certificates(tmp_path)
    assert found["rows"] == 100 and certificates["y"].dtype == np.int64
    assert (certificates["y"][50:] == -1).all()
    right = certificates["certified"] & (certificates["label"] == certificates["y"])
    assert found["certified_robust_accuracy"] == right[:50].mean()


def test_layers_names_are_not_part_of_the_model_but_activations_are(make_predictor):
    first, second = (fingerprint(make_predictor(), 7) for _ in range(2))
    assert first == second
    found = []
    for activation in ("linear", "softmax"):
        base = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(3, activation, False, "zeros")]
        )
        certified = CertifiedPredictor(base, LInf(0.2), 0.05, 0.05)
        found.append(fingerprint(certified, 7)["model"])
    assert found[0] != found[1]


def fingerprint_of(base, **kwargs):
    return fingerprint(CertifiedPredictor(base, LInf(0.2), **kwargs), 7)


def test_names_of_activations_and_heads_are_part_of_the_model():
    def named(activation):
        layers = [keras.Input((2,)), keras.layers.Activation(activation, name="relu")]
        return keras.Sequential(
            [*layers, keras.layers.Dense(3, kernel_initializer="ones")]
        )

    assert fingerprint_of(named("relu")) != fingerprint_of(named("tanh"))

    class Headed(keras.Model):
        def __init__(self, head):
            super().__init__()
            self.base_model = named("relu")
            self.head = keras.layers.Dense(3, kernel_initializer=head)

        def call(self, x):
            return self.head(self.base_model(x))

    heads = [Headed(head) for head in ("ones", "zeros")]
    for head in heads:
        head(np.zeros((1, 2), "float32"))
    assert fingerprint_of(heads[0]) != fingerprint_of(heads[1])
    assert fingerprint_of(heads[0]) == fingerprint_of(heads[0])


class Headless(keras.Model):
    """A model without a configuration."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def call(self, x):
        return self.head(x)


def test_the_precision_is_part_of_the_model():
    def sequential(policy):
        inputs, head = keras.Input((2,)), keras.layers.Dense(3, dtype=policy)
        return keras.Sequential([inputs, head])

    def subclassed(policy):
        model = Headless(keras.layers.Dense(3, dtype=policy))
        model(np.zeros((1, 2), "float32"))
        return model

    for make in (sequential, subclassed):
        full, same, half = map(make, ("float32", "float32", "mixed_bfloat16"))
        for model in (same, half):
            model.set_weights(full.get_weights())
        assert fingerprint_of(full) == fingerprint_of(same)
        assert fingerprint_of(full) != fingerprint_of(half)


def test_the_test_is_known_by_what_it_decides(make_predictor):
    class Lax(ExactTest):
        """One whose configuration does not say all."""

        @property
        def certify_times(self):
            return super().certify_times // 2

    fair, lax = (
        make_predictor(
            test=test(0.05, 0.05, 2000), kappa=None, alpha=None, max_samples=None
        )
        for test in (ExactTest, Lax)
    )
    assert fingerprint(fair, 7)["test"] != fingerprint(lax, 7)["test"]


def test_a_worker_with_another_model_is_refused(make_predictor):
    run = fingerprint(make_predictor(), 7) | {"library_version": "0"}
    with pytest.raises(ValueError, match="the same library_version"):
        Worker(make_predictor, 8, run=run)
    with pytest.raises(ValueError, match="All workers must have the same model"):
        Worker(lambda: make_predictor(scale=3.0), 8, run=run)


def test_a_full_disk(assert_all_there, run, data, tmp_path, monkeypatch):
    """What is whole stays, nothing half is left, and the run goes on later."""
    write, written = parquet.write_table, []

    def full(table, path):
        written.append(path)
        if len(written) > 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(table, path)

    monkeypatch.setattr("keras_probcert.distributed.store.parquet.write_table", full)
    with pytest.raises(OSError, match="cannot be written to .No space left on device"):
        run(data, tmp_path)
    names = [path.name for path in (tmp_path / "certificates").iterdir()]
    assert sorted(names) == ["part-000000.parquet", "part-000001.parquet"]
    monkeypatch.undo()
    assert run(data, tmp_path)["rows"] == ROWS
    assert_all_there(tmp_path)


def test_half_a_file_of_a_killed_process_is_nothing(
    assert_all_there, run, data, tmp_path
):
    run((data[0][:60], data[1][:60]), tmp_path)
    (tmp_path / "certificates" / ".part-000009.parquet").write_bytes(b"half")
    run(data, tmp_path)
    assert_all_there(tmp_path)


def test_two_processes_do_not_write_to_one_folder(run, data, tmp_path):
    import fcntl

    run((data[0][:9], data[1][:9]), tmp_path)
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="Another process is writing"):
            run(data, tmp_path)


def test_a_saved_model_and_a_function(
    predictor, make_predictor, data, expected, tmp_path
):
    make_predictor().save(tmp_path / "model.keras")
    rows = data[0][:50]
    for i, model in enumerate((tmp_path / "model.keras", predictor)):
        certify_dataset(model, rows, tmp_path / str(i), seed=7, verbose=0)
        found = load_certificates(tmp_path / str(i))
        np.testing.assert_array_equal(found["votes"], expected["votes"][:50])
        assert "y" not in found
    # The same run: the path's, continued with the object.
    found = certify_dataset(predictor, data[0], tmp_path / "0", verbose=0)
    assert found["new_rows"] == ROWS - 50


def test_an_error_of_the_data_keeps_what_is_certified(
    assert_all_there, run, data, tmp_path
):
    class Breaks:
        def __iter__(self):
            yield data[0][:100], data[1][:100]
            yield data[0][:5, :1], data[1][:5]

    settings = {"batch_size": 10}
    with pytest.raises(ValueError, match=r"rows of shape \(2,\). Received: \(1,\)"):
        run(Breaks(), tmp_path, **settings)
    assert len(load_certificates(tmp_path)["id"]) > 0
    run(data, tmp_path)
    assert_all_there(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"rows_a_file": 1.5}, "`rows_a_file` must be"),
        ({"workers": 0}, "`workers` must be"),
        ({"seed": -1}, "`seed` must be"),
        ({"setup": 3}, "`setup` must be"),
        ({"divide_by": "255"}, "`divide_by` must be.*'255'"),
        ({"divide_by": 0}, "`divide_by` must be .*above 0"),
    ],
)
def test_bad_arguments(run, settings, message, data, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_bad_models_and_data(make_predictor, run, data, tmp_path):
    with pytest.raises(ValueError, match="`model` must be a CertifiedPredictor"):
        certify_dataset(make_predictor().base_model, data[0], tmp_path, verbose=0)
    with pytest.raises(ValueError, match="`data` must have a floating-point dtype"):
        run((data[0] > 0.5).astype(int), tmp_path)
    with pytest.raises(ValueError, match="`data` must hold at least one row"):
        run(data[0][:0], tmp_path)
    with pytest.raises(ValueError, match="`output` must be a folder with"):
        load_certificates(tmp_path / "nothing")


def test_an_output_that_cannot_be_written_to(run, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        run(data, tmp_path / "file" / "output")


def test_a_missing_ray_says_what_to_install(run, data, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"need Ray: pip install"):
        run(data, tmp_path, workers=2)


def test_resources_must_be_amounts(run, data, tmp_path):
    for amount in (-1, float("nan"), "2"):
        with pytest.raises(ValueError, match=r"resources\['num_gpus'\]` must be"):
            run(data, tmp_path, workers=1, resources={"num_gpus": amount})


def test_data_that_is_not_scaled(data, run, tmp_path):
    with pytest.warns(UserWarning, match="All rows were refused"):
        found = run((data[0] * 16 + 2, data[1]), tmp_path)
    assert found["refused"] == ROWS and found["certified"] == 0


def test_a_setup_that_fails(data, run, tmp_path):
    def setup():
        raise ValueError("no such library")

    with pytest.raises(ValueError, match="no such library"):
        run(data, tmp_path / "new", setup=setup)
    assert not (tmp_path / "new").exists()


def test_some_columns(run, data, tmp_path):
    run(data, tmp_path)
    everything = load_certificates(tmp_path)
    some = load_certificates(tmp_path, ["label"])
    assert list(some) == ["label"]
    np.testing.assert_array_equal(some["label"], everything["label"])
    for columns in (["id", "lable"], "label"):
        with pytest.raises(ValueError, match="`columns` must be a list of names"):
            load_certificates(tmp_path, columns)


def test_a_base_that_is_built_after_it_was_wrapped(tmp_path):
    base = keras.Sequential([keras.layers.Dense(3)])
    certified = CertifiedPredictor(base, LInf(0.1), kappa=0.2)
    x = np.random.default_rng(0).random((5, 4), np.float32)
    base(x[:1])
    certify_dataset(certified, x, tmp_path, seed=0, verbose=0)
    assert load_certificates(tmp_path)["votes"].shape == (5, 3)


def test_inputs_of_two_sizes(tmp_path):
    pooled = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    base = keras.Sequential([keras.Input((None, None, 1)), *pooled])
    certified = CertifiedPredictor(base, LInf(0.1), kappa=0.2)
    for size in (4, 6, 4):
        x = np.random.default_rng(0).random((3, size, size, 1), np.float32)
        certify_dataset(certified, x, tmp_path / str(size), seed=0, verbose=0)
        found = load_certificates(tmp_path / str(size))
        expected = certified.predict(x, seed=0, verbose=0)
        np.testing.assert_array_equal(found["votes"], expected["votes"])
