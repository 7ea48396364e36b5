"""The examples in docstrings run, and say what they print."""

import doctest
import importlib
import pkgutil

import pytest

import keras_probcert

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(keras_probcert.__path__, "keras_probcert.")
    # The other backends' modules need what may not be installed.
    if not module.name.startswith("keras_probcert.backend.")
    and module.name != "keras_probcert.certifiers.export"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    names = {n: getattr(keras_probcert, n) for n in keras_probcert.__all__}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in finder.find(module, module.__name__, extraglobs=names):
        runner.run(test)
    assert runner.failures == 0


def test_public_names_have_the_sections_of_a_manual():
    """Every public class and function says what it takes and shows a use."""
    for name in keras_probcert.__all__:
        thing = getattr(keras_probcert, name)
        if not callable(thing):
            continue
        documentation = thing.__doc__
        assert "Example:" in documentation, name
        if name != "Decision":
            assert "Args:" in documentation and "Raises:" in documentation, name
