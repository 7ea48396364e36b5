"""Vicinities B(x) with a law to draw from them."""

from keras_probcert.perturbations.affine import Affine
from keras_probcert.perturbations.composition import Composition
from keras_probcert.perturbations.gaussian import Gaussian
from keras_probcert.perturbations.generalized_gaussian import GeneralizedGaussian
from keras_probcert.perturbations.l0 import L0
from keras_probcert.perturbations.l1 import L1
from keras_probcert.perturbations.l2 import L2
from keras_probcert.perturbations.laplace import Laplace
from keras_probcert.perturbations.linf import LInf
from keras_probcert.perturbations.noise import Noise
from keras_probcert.perturbations.perturbation import Perturbation, get
from keras_probcert.perturbations.rotation import Rotation
from keras_probcert.perturbations.scale import Scale
from keras_probcert.perturbations.translation import Translation

__all__ = [
    "Affine",
    "Composition",
    "Gaussian",
    "GeneralizedGaussian",
    "L0",
    "L1",
    "L2",
    "LInf",
    "Laplace",
    "Noise",
    "Perturbation",
    "Rotation",
    "Scale",
    "Translation",
    "get",
]
