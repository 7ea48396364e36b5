"""Attacks: searches for inputs near an input that a model gets wrong."""

from keras_probcert.attacks.apgd import APGD
from keras_probcert.attacks.apgdt import APGDT
from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.fgsm import FGSM
from keras_probcert.attacks.gradient_attack import GradientAttack
from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.attacks.pgd import PGD
from keras_probcert.attacks.projected_gradient import ProjectedGradient
from keras_probcert.attacks.survivors import SurvivorAttack

__all__ = [
    "APGD",
    "APGDT",
    "FGSM",
    "MIFGSM",
    "PGD",
    "Attack",
    "GradientAttack",
    "ProjectedGradient",
    "SurvivorAttack",
]
