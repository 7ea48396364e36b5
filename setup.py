"""Packaging of keras_probcert."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
version = re.search(
    r'__version__ = "(.+)"', (here / "keras_probcert" / "version.py").read_text()
).group(1)

plots = ["matplotlib>=3.8"]
report = [*plots, "jinja2>=3.1"]
ray = ["ray[serve]>=2.50"]
serving = ["tensorflow-serving-api>=2.20"]
examples = [*report, "scikit-learn>=1.4"]
docs = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.5,<10",
    "mkdocstrings[python]>=1.0",
    "ruff>=0.9",
]
dev = [
    *examples,
    *docs,
    *ray,
    *serving,
    "ipykernel>=6.29",
    "jax>=0.4.34",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "statsmodels>=0.14",
    "tensorboard>=2.19",
]

setup(
    name="keras_probcert",
    version=version,
    description=(
        "Train Keras classifiers that hold still under small perturbations, "
        "certify each prediction, and serve the certificate."
    ),
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["keras_probcert", "keras_probcert.*"]),
    package_data={"keras_probcert.report": ["templates/*"]},
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.12",
        "scipy>=1.11",
        "tensorflow-probability[tf]>=0.25",
        "tensorflow-datasets>=4.9.10",
        # tensorflow-datasets imports it without declaring it.
        "importlib_resources",
        "cleverhans>=4.0",
        "numpy>=1.26",
        "pyarrow>=17",
        "rich>=13",
    ],
    entry_points={
        "console_scripts": ["keras-probcert = keras_probcert.cli:main"],
    },
    extras_require={
        "plots": plots,
        "report": report,
        "examples": examples,
        "ray": ray,
        "serving": serving,
        "docs": docs,
        "dev": dev,
    },
)
