"""The notebooks run from top to bottom, at a size that takes seconds."""

import pathlib
import re

import pytest

from keras_probcert import ExactTest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
SMALL = {
    "quickstart": {"EPOCHS": 1, "TEST_DIGITS": 20, "KAPPA": 0.1},
    "mnist": {"TRAIN_IMAGES": 200, "TEST_IMAGES": 10, "ROWS": 2_000, "KAPPA": 0.1},
}
# The policy of pyproject.toml, inside the kernel.
STRICT = "import warnings; warnings.filterwarnings('error', module='keras_probcert')"


def run(name, folder):
    """The notebook `name` after all its cells ran in `folder`, its settings small."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    settings = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert len(settings) == 1
    for variable, value in SMALL[name].items():
        settings[0].source, found = re.subn(
            rf"(?m)^{variable} = [\w.]+", f"{variable} = {value}", settings[0].source
        )
        assert found == 1, variable
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    resources = {"metadata": {"path": str(folder)}}
    return nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    ).execute()


def printed(notebook):
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.text for o in outputs if o.get("name") == "stdout")


@pytest.mark.parametrize("name", SMALL)
def test_notebooks_are_committed_without_outputs(name):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_quickstart(tmp_path):
    text = printed(run("quickstart", tmp_path))
    assert text.count("certified_robust_accuracy") == 2
    votes = ExactTest(kappa=0.1, alpha=0.01).operating_characteristics(1.0)
    votes = f"{votes['expected_samples']:8,.0f} votes"
    assert f"1.0: certified with probability 1.000, {votes}" in text
    assert (tmp_path / "quickstart-output/serving/1/saved_model.pb").exists()


@pytest.mark.slow
@pytest.mark.tensorflow
def test_mnist(tmp_path, mnist):
    """`mnist` skips, with the reason, where the data are missing."""
    text = printed(run("mnist", tmp_path))
    assert "variance-minimizing − plain:" in text
    rates = re.findall(r"(?m)^(?:plain|random|variance)\D+ +([\d.]+) +[\d.]+", text)
    assert len(rates) == 3 and all(0 <= float(rate) <= 1 for rate in rates)
