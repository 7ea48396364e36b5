"""`keras-probcert` on a `.keras` file and arrays, against the library itself."""

import argparse
import csv
import io
import json

import keras
import numpy as np
import pytest

from keras_probcert import (
    CertifiedPredictor,
    ExactTest,
    LInf,
    attacks,
    load_certificates,
    plan_certification,
)
from keras_probcert.cli import main, output

pytestmark = pytest.mark.tensorflow
VICINITY = ["--perturbation", "linf", "--epsilon", "0.2", "--kappa", "0.1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model of two classes, told apart by the first coordinate, and inputs."""
    folder = tmp_path_factory.mktemp("cli")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    kernel = np.array([[-4, 4], [0, 0], [0, 0]], "float32")
    model.layers[0].set_weights([kernel, np.array([2, -2], "float32")])
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).random((8, 3)).astype("float32")
    x[:4, 0], x[4:, 0] = 0.1, 0.55
    y = (x[:, 0] > 0.5).astype("int64")
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "inputs.npz", x=(255 * x).astype("uint8"))
    np.save(folder / "x.npy", x)
    return folder, model, x, y


def test_certify(files, capsys):
    folder, model, x, y = files
    command = ["certify", str(folder / "model.keras"), str(folder / "data.npz")]
    assert main([*command, *VICINITY, "--seed", "0", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    certified = CertifiedPredictor(model, LInf(0.2), kappa=0.1)
    expected = certified.predict(x, seed=0, verbose=0)
    for name in ("label", "certified", "num_samples"):
        assert [row[name] for row in rows] == expected[name].tolist()
    assert [row["y"] for row in rows] == y.tolist()
    assert [row["certified"] for row in rows] == [True] * 4 + [False] * 4
    # A folder, fewer rows, CSV, a demand that is not met, a table.
    command[2] = str(folder)
    options = ["--rows", "6", "--csv", "--at-least", "0.9"]
    assert main([*command, *VICINITY, "--seed", "0", *options]) == 1
    shown = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert [row["decision"] for row in rows][:4] == ["robust"] * 4 and len(rows) == 6
    assert "4 of 6 rows certified" in shown.err
    command[2] = str(folder / "inputs.npz")
    assert main([*command, *VICINITY]) == 0
    assert "Certificates" in capsys.readouterr().out


def test_certify_into_a_folder(files, tmp_path, capsys):
    folder, model, x, y = files
    command = ["certify", str(folder / "model.keras"), str(folder / "data.npz")]
    command += [*VICINITY, "--seed", "0", "--output", str(tmp_path / "out"), "--json"]
    expected = CertifiedPredictor(model, LInf(0.2), kappa=0.1).predict(
        x, seed=0, verbose=0
    )
    # The same call goes on.
    for rows, new in ((5, 5), (8, 3), (8, 0)):
        assert main([*command, "--rows", str(rows)]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["rows"], found["new_rows"]) == (rows, new)
    certificates = load_certificates(tmp_path / "out")
    for name, value in expected.items():
        np.testing.assert_array_equal(certificates[name], value)
    np.testing.assert_array_equal(certificates["y"], y)
    for option in ("--workers", "--gpus"):
        assert main([*command[:-3], option, "2"]) == 2
        assert f"`{option}` needs `--output`" in capsys.readouterr().err
    # Resources are those of workers, of which there are none.
    assert main([*command, "--cpus", "2"]) == 2
    assert "{'num_cpus': 2.0}" in capsys.readouterr().err


def test_a_saved_predictor_brings_its_own_arguments(files, tmp_path, capsys):
    folder, model, x, y = files
    path = tmp_path / "certified.keras"
    CertifiedPredictor(model, LInf(0.1), kappa=0.2).save(path)
    command = ["evaluate", str(path), str(folder / "data.npz"), "--seed", "1"]
    assert main([*command, "--json"]) == 0
    found = {r["metric"]: r for r in json.loads(capsys.readouterr().out)}
    assert found["certified_robust_accuracy"]["value"] == 0.5
    assert found["standard_accuracy"]["upper"] == 1.0
    assert found["standard_accuracy"]["successes"] == 8
    assert {r["kappa"] for r in found.values()} == {0.2}
    assert found["standard_accuracy"]["perturbation"].startswith("LInf(")
    assert main([*command, "--at-least", "0.6"]) == 1
    for options in (["--kappa", "0.1"], ["--clip", "-1", "1"], ["--no-clip"]):
        assert main([*command, *options]) == 2
        assert "brings its own arguments" in capsys.readouterr().err
    # Its vote is what is attacked, with what it brings.
    command = ["attack", str(path), str(folder / "data.npz"), "--epsilon", "0.5"]
    assert main([*command, "--attacks", "FGSM", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["kappa"] for row in rows} == {0.2}
    assert main([*command, "--vote", "--alpha", "0.1"]) == 2
    assert "`model` brings its own" in capsys.readouterr().err
    # Its range is the attack's.
    CertifiedPredictor(model, LInf(0.1, clip=None), kappa=0.2).save(path)
    assert main([*command, "--attacks", "FGSM", "SmoothedPGD", "PGDL2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    norms = {row["attack"]: row["norm"] for row in rows}
    assert norms == {"FGSM": "linf", "SmoothedPGD": "linf", "PGDL2": "l2"}


def test_attack(files, capsys):
    folder, model, x, y = files
    command = ["attack", str(folder / "model.keras"), str(folder / "data.npz")]
    options = ["--epsilon", "0.1", "--attacks", "FGSM", "GaussianNoise", "--json"]
    assert main([*command, *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    found = attacks.evaluate_attack(model, attacks.FGSM(0.1), x, y, verbose=0)
    rates = {(r["attack"], r["rate"]): r["value"] for r in rows}
    assert rates["FGSM", "defence_success_rate"] == found.defence_success_rate.rate
    assert rates["FGSM", "defence_success_rate"] == 0.5
    assert {(r["of"], r["epsilon"], r["seed"]) for r in rows} == {(8, 0.1, 0)}
    counts = {(r["attack"], r["rate"]): r["successes"] for r in rows}
    assert counts["FGSM", "defence_success_rate"] == 4
    options = ["--epsilon", "0.1", "--attacks", "FGSM", "--vote", "--kappa", "0.2"]
    assert main([*command, *options, "--at-least", "0.9"]) == 1
    assert "denied" in capsys.readouterr().out


def test_plan(capsys):
    assert main(["plan", "--kappa", "0.1", "--agreement", "1", "0.9", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    expected = ExactTest(0.1, 0.01).operating_characteristics(0.9)
    assert rows[1]["certify"] == pytest.approx(expected["certify"])
    assert rows[1]["certify"] <= 0.01
    assert rows[0]["agreement"] == 1.0


def test_plan_of_a_data_set(files, capsys):
    command = ["plan", "--kappa", "0.1", "--rows", "1000", "--robust-share", "0.9"]
    assert main([*command, "--rate", "500", "--workers", "2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    expected = plan_certification(
        ExactTest(0.1, 0.01), 1000, robust_share=0.9, rate=500, workers=2
    )
    assert row["votes"] == pytest.approx(expected.votes)
    assert row["hours"] == pytest.approx(row["seconds"] / 2 / 3600)
    assert main([*command, "--rate", "500", "--hours", "0.01"]) == 0
    assert "workers needed" in capsys.readouterr().out


def test_plan_with_a_model_and_a_pilot(files, capsys):
    folder, *_ = files
    command = ["plan", "--rows", "1000", "--model", str(folder / "model.keras")]
    options = [*VICINITY, "--pilot", str(folder / "data.npz"), "--pilot-rows", "6"]
    assert main([*command, *options, "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    # Four of the six rows are certified.
    assert 0.2 < float(row["certified"]) < 0.95
    assert float(row["rate"]) > 0 and float(row["hours"]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "5"], "`--rows` must be given"),
        (["--rows", "5"], "Exactly one of `--robust-share`"),
        (["--rows", "5", "--robust-share", "1"], "`--robust-share` must be"),
        (["--perturbation", "linf"], "`--rows` must be given"),
        (["--rows", "5", "--epsilon", "1"], "`--model` must be given with `--epsilon`"),
        (["--rows", "5", "--pilot", "x.npz"], "`--model` must be given"),
    ],
)
def test_bad_plans(capsys, options, message):
    assert main(["plan", *options]) == 2
    assert message in capsys.readouterr().err


def test_export(files, tmp_path, capsys):
    import tensorflow as tf

    folder, _, x, _ = files
    served = str(tmp_path / "1")
    assert main(["export", str(folder / "model.keras"), served, *VICINITY]) == 0
    loaded = tf.saved_model.load(served)
    answer = loaded.serving_default(tf.constant(x))
    assert answer["certified"].numpy()[:4].all()
    # What is served is not replaced unless that is said.
    again = ["export", str(folder / "model.keras"), served, *VICINITY]
    assert main(again) == 2 and "`folder` must be new" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("command", "data", "message"),
    [
        ("certify", "data.npz", "`--perturbation` and `--epsilon` must be given"),
        ("certify", "nowhere.npz", "nowhere.npz"),
        ("evaluate", "inputs.npz", "must hold labels"),
        ("certify", "no_such_dataset:test[:5]", "data=no_such_dataset:test[:5]"),
        ("certify", "images.npz", "with ['images']"),
        ("certify", "empty.npz", "`data` must be a whole file"),
        ("certify", "cut.npz", "`data` must be a whole file"),
        ("evaluate", "words.npz", "`y` must hold classes as integers"),
        ("certify", "words.npz", "`y` must hold classes as integers"),
        ("certify", "rotation", "Rotation perturbs images"),
    ],
)
def test_bad_input(files, capsys, command, data, message):
    folder, _, x, _ = files
    np.savez(folder / "images.npz", images=x)
    (folder / "empty.npz").write_bytes(b"")
    whole = (folder / "data.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(folder / "words.npz", x=x, y=np.array(["cat"] * len(x)))
    path = str(folder / data) if data.endswith(".npz") else data
    options = ["--epsilon", "0.1"] if "perturbation" in message else VICINITY
    if data == "rotation":
        path, options = str(folder), ["--perturbation", "rotation", "--epsilon", "9"]
    assert main([command, str(folder / "model.keras"), path, *options]) == 2
    assert message in capsys.readouterr().err


def test_files_that_would_run_code_are_refused(files, tmp_path, capsys):
    folder, *_ = files
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(2)]
    )
    model.save(tmp_path / "lambda.keras")
    command = ["certify", str(tmp_path / "lambda.keras"), str(folder / "data.npz")]
    assert main([*command, *VICINITY]) == 2
    assert "safe_mode" in capsys.readouterr().err
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    command = ["certify", str(folder / "model.keras"), str(tmp_path / "objects.npz")]
    assert main([*command, *VICINITY]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "PDG"], "Did you mean PGD?"),
        (["--attacks", "pgd"], "Did you mean PGD?"),
        (["--attacks", "Deny"], "needs `--vote`"),
        (["--kappa", "0.1"], "`--kappa` cannot be given, as they are for `--vote`"),
    ],
)
def test_bad_attacks(files, capsys, options, message):
    folder, *_ = files
    command = ["attack", str(folder / "model.keras"), str(folder / "data.npz")]
    assert main([*command, "--epsilon", "0.1", *options]) == 2
    assert message in capsys.readouterr().err


def test_exit_codes(files, capsys, monkeypatch):
    folder, *_ = files
    command = ["evaluate", str(folder / "model.keras"), str(folder / "data.npz")]
    with pytest.raises(SystemExit) as stop:
        main([*command, *VICINITY, "--at-least", "90%"])
    assert stop.value.code == 2 and "must be in [0, 1]" in capsys.readouterr().err
    # A crash is not a demand that is not met.
    monkeypatch.setattr("keras_probcert.cli.evaluate.run", lambda args: 1 / 0)
    assert main([*command, *VICINITY]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_json_has_no_nan(capsys):
    args = argparse.Namespace(json=True, csv=False)
    output.show(args, [{"value": float("nan"), "of": 0}], "", settings={"seed": 1})
    (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert row == {"value": None, "of": 0, "seed": 1}


def test_a_single_unit_that_does_not_show_what_it_is(tmp_path, capsys):
    dense, reshape = keras.layers.Dense(1), keras.layers.Reshape((1,))
    model = keras.Sequential([keras.Input((3,)), dense, reshape])
    dense.set_weights([np.array([[8.0], [0], [0]]), np.array([-4.0])])
    model.save(tmp_path / "model.keras")
    x = np.full((4, 3), 0.1, "float32")
    x[2:, 0] = 0.9
    np.savez(tmp_path / "data.npz", x=x, y=[0, 0, 1, 1])
    files = [str(tmp_path / name) for name in ("model.keras", "data.npz")]
    certify = ["certify", *files, *VICINITY, "--json"]
    attack = ["attack", *files, "--epsilon", "0.1", "--attacks", "FGSM", "--json"]
    for command in (certify, attack, [*attack, "--vote", "--kappa", "0.1"]):
        assert main(command) == 2
        assert "`--from-logits` must be given" in capsys.readouterr().err
        assert main([*command, "--from-logits"]) == 0
        rows = json.loads(capsys.readouterr().out)
        if command is certify:
            assert [row["label"] for row in rows] == [0, 0, 1, 1]
        else:
            assert rows[0]["value"] == 1.0
