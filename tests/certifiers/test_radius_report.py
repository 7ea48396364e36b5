"""Metrics of radii, their table and curve, and the field's log, against counts."""

import datetime

import numpy as np
import pytest

from keras_probcert.certifiers.radius_report import (
    certified_accuracy_table,
    plot_certified_accuracy,
    read_log,
    write_log,
)
from keras_probcert.metrics import (
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    success_rate,
)


def random_results(rows=500, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, 3, rows).astype("int32")
    # Radii on a grid, so that many are equal.
    radius = np.where(label < 0, 0, rng.integers(1, 9, rows) / 4).astype("float32")
    return {"label": label, "radius": radius}, rng.integers(0, 3, rows)


def test_metrics_equal_a_count_row_by_row():
    results, y = random_results()
    rows = list(zip(results["label"], results["radius"], y, strict=True))
    radii = np.array([[0.0, 0.1, 0.25], [0.5, 2.0, 2.1]])
    expected = [
        sum(label == c and radius >= r for label, radius, c in rows) / len(rows)
        for r in radii.ravel()
    ]
    for labels in (y, y[:, None], np.eye(3)[y]):
        got = certified_accuracy(results, labels, radii)
        np.testing.assert_allclose(got.ravel(), expected, rtol=1e-12)
    assert expected[0] > expected[3] > expected[4] > expected[5] == 0
    right = [float(radius) for label, radius, c in rows if label == c]
    acr = average_certified_radius(results, y)
    assert acr == pytest.approx(sum(right) / len(rows))
    assert average_certified_radius(results, y, over="correct") == pytest.approx(
        sum(right) / len(right)
    )
    # The area under the curve, of steps of 1/4.
    steps = certified_accuracy(results, y, np.arange(1, 9) / 4)
    assert acr == pytest.approx(steps.sum() / 4)
    abstained = sum(label == -1 for label, _, _ in rows) / len(rows)
    assert abstention_rate(results) == pytest.approx(abstained)


def test_nothing_right():
    results = {"label": np.array([-1, 1]), "radius": np.array([0.0, 3.0])}
    assert certified_accuracy(results, [0, 0], 0.0) == 0.0
    assert average_certified_radius(results, [0, 0]) == 0.0
    assert np.isnan(average_certified_radius(results, [0, 0], over="correct"))
    pytest.importorskip("matplotlib")
    assert plot_certified_accuracy({"wrong": (results, [0, 0])}).axes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"results": {"label": np.zeros(3, int)}}, "`results` must.*'radius'"),
        ({"results": None}, "`results` must be a dict"),
        # An abstention must never count as right.
        ({"y": [0, -1, 1]}, "`y` must hold classes.*-1"),
        ({"y": [0, 1]}, "`y` must hold one label for each of the 3 rows"),
        ({"radii": -0.5}, "`radii` must be.*-0.5"),
        ({"radii": np.nan}, "`radii` must be.*nan"),
    ],
)
def test_bad_arguments(change, message):
    results = {"label": np.array([0, -1, 1]), "radius": np.array([1.0, 0.0, 2.0])}
    arguments = {"results": results, "y": [0, 1, 1], "radii": 0.5, **change}
    with pytest.raises(ValueError, match=message):
        certified_accuracy(**arguments)


def test_other_bad_arguments():
    results = {"label": np.array([0]), "radius": np.array([1.0])}
    with pytest.raises(ValueError, match="`over` must be one of.*'mean'"):
        average_certified_radius(results, [0], over="mean")
    for function in (
        lambda m: certified_accuracy_table(m, [0.0]),
        plot_certified_accuracy,
    ):
        for models, message in (
            ({}, "`models` must be a dict"),
            ({"a": results}, "`models` must hold pairs.*dict for 'a'"),
            ({"a": ({"label": [0]}, [0])}, "`results` must be a dict.*'label'"),
        ):
            with pytest.raises(ValueError, match=message):
                function(models)
    with pytest.raises(ValueError, match="`results` must be a dict"):
        write_log("nowhere", {"label": [0]}, [0], 1.0)


def test_table():
    pytest.importorskip("rich")
    results, y = random_results()
    models = {"first": (results, y), "second": random_results(40, seed=1)}
    table = certified_accuracy_table(models, [0, 0.5, 2])
    columns = {c.header: list(c.cells) for c in table.columns}
    assert columns["model"] == ["first", "second"]
    assert columns["r = 0.5"][0] == f"{100 * certified_accuracy(results, y, 0.5):.1f}"
    assert columns["ACR"][0] == f"{average_certified_radius(results, y):.3f}"
    intervals = certified_accuracy_table(models, 0.5, level=0.9).columns[-1]
    rate = success_rate((results["label"] == y) & (results["radius"] >= 0.5), 0.9)
    assert list(intervals.cells)[0] == (
        f"{100 * rate.rate:.1f} [{100 * rate.lower:.0f}, {100 * rate.upper:.0f}]"
    )


def test_curve_is_the_certified_accuracy(tmp_path):
    figure = pytest.importorskip("matplotlib.figure")
    results, y = random_results()
    axes = figure.Figure().subplots()
    fig = plot_certified_accuracy(
        {"a": (results, y), "b": random_results(9, 1)}, tmp_path / "curve.png", ax=axes
    )
    assert fig is axes.figure and (tmp_path / "curve.png").stat().st_size > 0
    curve = axes.lines[0]
    radii, accuracy = curve.get_xdata(), curve.get_ydata()
    assert curve.get_drawstyle() == "steps-pre"
    # Between two points the curve has the height of the second.
    for r in (0.1, 0.3, 1.1, 1.9):
        drawn = accuracy[np.searchsorted(radii, r)]
        assert drawn == certified_accuracy(results, y, r)
    assert accuracy[0] == certified_accuracy(results, y, 0.0)
    assert accuracy[-1] == 0 and radii[-1] == results["radius"].max()


def test_log_there_and_back(tmp_path):
    results, y = random_results(60)
    results["radius"] = results["radius"] * np.float32(0.7)
    seconds = np.random.default_rng(0).random(60) * 5000
    write_log(tmp_path / "log", results, y, seconds, indices=np.arange(60) * 20)
    read, labels = read_log(tmp_path / "log")
    np.testing.assert_array_equal(read["label"], results["label"])
    np.testing.assert_array_equal(read["radius"], results["radius"].astype(float))
    np.testing.assert_array_equal(read["certified"], results["label"] >= 0)
    np.testing.assert_array_equal(read["index"], np.arange(60) * 20)
    np.testing.assert_allclose(read["seconds"], seconds, atol=1e-6)
    np.testing.assert_array_equal(labels, y)
    # The clock is the one that Python prints.
    lines = (tmp_path / "log").read_text().splitlines()
    shown = lines[1].split("\t")
    assert shown[5] == str(datetime.timedelta(seconds=round(seconds[0], 6)))
    assert shown[4] == str(int(results["label"][0] == y[0]))
    # Of a total every row has its share.
    write_log(tmp_path / "log", results, y, 90.0)
    assert (read_log(tmp_path / "log")[0]["seconds"] == 1.5).all()


def test_published_logs(tmp_path):
    path = tmp_path / "log"
    path.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
        "0\t3\t3\t0.84\t1\t0:00:17.405122\n"
        "20\t7\t-1\t0.0\t0\t1 day, 1:01:02\n"
    )
    results, y = read_log(path)
    assert results["seconds"].tolist() == [17.405122, 86400 + 3662]
    assert certified_accuracy(results, y, [0.0, 0.84, 0.85]).tolist() == [0.5, 0.5, 0]


def test_bad_logs(tmp_path):
    results, y = random_results(4)
    with pytest.raises(ValueError, match="`seconds` must hold one number.*4 rows"):
        write_log(tmp_path / "log", results, y, np.zeros(3))
    (tmp_path / "log").write_text("idx,label\n1,2\n")
    with pytest.raises(ValueError, match="`path` must be a tab-separated log"):
        read_log(tmp_path / "log")


def test_what_proves_nothing_stays_out_of_logs(tmp_path):
    results = {"label": np.array([1, 1]), "radius": np.array([0.5, 0.5])}
    with pytest.raises(ValueError, match="`results` must be certificates"):
        write_log(
            tmp_path / "log.tsv",
            {**results, "guarantee": np.array(["heuristic"] * 2)},
            [1, 1],
            1.0,
        )
    # As a graph answers, which has no strings.
    some = {**results, "certified": np.array([True, False])}
    write_log(tmp_path / "log.tsv", some, [1, 1], 1.0)
    read, y = read_log(tmp_path / "log.tsv")
    assert read["certified"].tolist() == [True, False]
    assert certified_accuracy(some, y, 0.4) == certified_accuracy(read, y, 0.4) == 0.5
