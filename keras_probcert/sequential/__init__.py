"""Sequential tests on a stream of votes."""

from keras_probcert.sequential.algorithm2 import Algorithm2Test
from keras_probcert.sequential.beta_mixture import BetaMixtureTest
from keras_probcert.sequential.confidence_sequence import confidence_bounds
from keras_probcert.sequential.operating_characteristics import (
    operating_characteristics,
)
from keras_probcert.sequential.sequential_test import SequentialTest

__all__ = [
    "Algorithm2Test",
    "BetaMixtureTest",
    "SequentialTest",
    "confidence_bounds",
    "operating_characteristics",
]
