"""Attacks: searches for inputs near an input that a model gets wrong."""

from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.attack_suite import AttackSuite, attack_suite
from keras_probcert.attacks.evaluate import evaluate_attack
from keras_probcert.attacks.evaluation import AttackEvaluation
from keras_probcert.attacks.fgsm import FGSM
from keras_probcert.attacks.gradient_attack import GradientAttack
from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.attacks.pgd import PGD
from keras_probcert.attacks.projected_gradient import ProjectedGradient

__all__ = [
    "FGSM",
    "MIFGSM",
    "PGD",
    "Attack",
    "AttackEvaluation",
    "AttackSuite",
    "GradientAttack",
    "ProjectedGradient",
    "attack_suite",
    "evaluate_attack",
]
