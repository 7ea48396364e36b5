"""Sequential tests on a stream of votes."""

from keras_probcert.sequential.algorithm2 import Algorithm2Test
from keras_probcert.sequential.beta_mixture import BetaMixtureTest
from keras_probcert.sequential.betting import BettingTest
from keras_probcert.sequential.clopper_pearson import ClopperPearsonTest
from keras_probcert.sequential.cost import CertificationPlan, plan_certification
from keras_probcert.sequential.evidence import confidence_sequence, e_value
from keras_probcert.sequential.exact_test import ExactTest
from keras_probcert.sequential.operating_characteristics import (
    operating_characteristics,
)
from keras_probcert.sequential.sequential_test import SequentialTest
from keras_probcert.sequential.sprt import SPRT
from keras_probcert.sequential.union_bound import UnionBoundTest

__all__ = [
    "SPRT",
    "Algorithm2Test",
    "BetaMixtureTest",
    "BettingTest",
    "CertificationPlan",
    "ClopperPearsonTest",
    "ExactTest",
    "SequentialTest",
    "UnionBoundTest",
    "confidence_sequence",
    "e_value",
    "operating_characteristics",
    "plan_certification",
]
