"""The reproduction: the paper's numbers, and runs that are stopped and go on."""

import importlib
import json
import pathlib
import sys
from dataclasses import replace

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "examples" / "reproduce"
NAMES = [file.stem for file in FOLDER.glob("*.py")]


@pytest.fixture
def load(monkeypatch):
    """Imports modules of the example, and forgets them afterwards."""
    pytest.importorskip("rich")
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


def test_numbers_of_the_paper(load):
    paper = load("paper")
    # Averages that the paper's text states of its own tables.
    ours = paper.TABLE_1
    datasets = ("cifar100", "cifar10", "svhn", "mnist")
    for method, mean in {
        "variance_minimizing": 83.36,
        "prl": 81.87,
        "erm": 20.44,
    }.items():
        values = [ours[dataset, "robust accuracy"][method] for dataset in datasets]
        assert np.mean(values) == pytest.approx(mean, abs=0.006)
    rates = [ours[d, "robustness rate"]["variance_minimizing"] for d in datasets]
    assert np.mean(rates) == pytest.approx(87.02, abs=0.006)
    defended = [paper.TABLE_3[d]["variance_minimizing"] for d in datasets]
    assert np.mean(defended) == pytest.approx(82.77, abs=0.006)
    from keras_probcert.attacks import TABLE_9

    assert set(paper.TABLE_9) == set(TABLE_9)
    assert paper.TABLE_11[1e-2] == {
        **{m: ours["cifar10", "robust accuracy"][m] for m in paper.METHODS}
    }
    assert paper.TABLE_12[0.01] == paper.TABLE_11[1e-2]


def test_every_preset_plans_every_table(load, monkeypatch, tmp_path):
    settings = load("settings")
    datasets, training = load("datasets"), load("training")

    def images(dataset, split):
        return np.zeros((48_000, 1, 1, 1)), np.zeros(48_000)

    monkeypatch.setattr(datasets, "load", images)
    monkeypatch.setattr(training, "load", images)
    for preset in settings.PRESETS.values():
        for dataset, size in preset.sizes.items():
            for method in preset.methods:
                config = training.plan(method, dataset, size, ("linf", 0.3), 0)
                examples = config["epochs"] * config["steps"] * config["batch_size"]
                _, cost = settings.arguments_and_cost(method, size, dataset, ("linf",))
                wanted = size.rows // cost if size.rows else config["epochs"] * 48_000
                # Whole batches and whole epochs only.
                assert 0 <= wanted - examples < config["epochs"] * config["batch_size"]
                json.dumps(config)


class Killed(Exception):
    pass


def test_a_training_that_was_stopped_ends_the_same(load, tmp_path):
    settings, training = load("settings"), load("training")
    size = replace(settings.PRESETS["smoke"].sizes["digits"], rows=600)
    config = training.plan(
        "variance_minimizing", "digits", size, ("linf", 0.3), seed=1, points=3
    )

    def kill(epoch, epochs):
        if epoch == 1:
            raise Killed

    whole, _ = training.train(config, tmp_path / "whole", lambda *_: None)
    with pytest.raises(Killed):
        training.train(config, tmp_path / "stopped", kill)
    resumed, record = training.train(config, tmp_path / "stopped", lambda *_: None)
    for left, right in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    assert len(record["history"]) == 3
    # What is there is taken, not trained again.
    again, _ = training.train(config, tmp_path / "stopped", kill)
    for left, right in zip(again.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_examples_are_passes_over_the_images(load):
    settings, training = load("settings"), load("training")
    size = replace(settings.PRESETS["smoke"].sizes["digits"], rows=1_149 * 8)
    config = training.plan("erm", "digits", size, ("linf", 0.3), seed=1, points=2)
    _, labels = load("datasets").load("digits", "train")
    seen = np.concatenate([training._examples(config, epoch)[1] for epoch in range(2)])
    images = config["images"]
    assert images == len(labels) == 1_149
    for start in range(0, len(seen) - images, images):
        counts = np.bincount(seen[start : start + images])
        np.testing.assert_array_equal(counts, np.bincount(labels))


def test_cells_are_computed_once(load, tmp_path):
    settings, run = load("settings"), load("run")
    preset = settings.PRESETS["smoke"]
    first = run.Run(preset, "smoke", tmp_path, ["digits"], 0)
    assert first.cell({"what": 1}, lambda: [1.0]) == [1.0]
    again = run.Run(preset, "smoke", tmp_path, ["digits"], 0)
    assert again.cell({"what": 1}, lambda: pytest.fail("computed")) == [1.0]
    assert again.cell({"what": 2}, lambda: [2.0]) == [2.0]


def test_shifts_and_mirrors(load):
    training = load("training")
    x = np.random.default_rng(0).random((400, 5, 6, 2), np.float32)
    moved = training._shifted_and_mirrored(x, np.random.default_rng(1), most=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kinds = np.zeros((400, 3, 3, 2), bool)
    for top in range(3):
        for left in range(3):
            crop = padded[:, top : top + 5, left : left + 6]
            kinds[:, top, left, 0] = (crop == moved).all((1, 2, 3))
            kinds[:, top, left, 1] = (crop[:, :, ::-1] == moved).all((1, 2, 3))
    # Each image is one of the 18, and each of the 18 occurs: none with probability
    # 18 · (17/18)^400 < 1e-8.
    assert (kinds.sum((1, 2, 3)) == 1).all()
    assert kinds.any(0).all()


def test_data_from_a_folder(load, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = {
        f"{name}_{part}": rng.integers(0, 10, (rows, *shape)).astype("uint8")
        for part, rows in (("train", 10), ("test", 4))
        for name, shape in (("x", (6, 5, 3)), ("y", ()))
    }
    np.savez(tmp_path / "svhn.npz", **arrays)
    monkeypatch.setenv("KERAS_PROBCERT_DATA", str(tmp_path))
    datasets = load("datasets")
    for split, part in (("train", slice(8)), ("validation", slice(8, None))):
        x, y = datasets.load("svhn", split)
        np.testing.assert_allclose(x, arrays["x_train"][part] / 255, rtol=1e-6)
        np.testing.assert_array_equal(y, arrays["y_train"][part])
    assert len(datasets.load("svhn", "test")[0]) == 4
