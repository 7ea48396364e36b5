"""Attacks: searches for inputs near an input that a model gets wrong."""

from keras_probcert.attacks.apgd import APGD
from keras_probcert.attacks.apgdt import APGDT
from keras_probcert.attacks.attack import Attack
from keras_probcert.attacks.attack_suite import AttackSuite, attack_suite
from keras_probcert.attacks.autoattack import AutoAttack
from keras_probcert.attacks.bim import BIM
from keras_probcert.attacks.certificate_attack import CertificateAttack
from keras_probcert.attacks.cw import CW
from keras_probcert.attacks.deny import Deny
from keras_probcert.attacks.difgsm import DIFGSM
from keras_probcert.attacks.eotpgd import EOTPGD
from keras_probcert.attacks.evaluate import evaluate_attack
from keras_probcert.attacks.evaluation import AttackEvaluation
from keras_probcert.attacks.fab import FAB
from keras_probcert.attacks.ffgsm import FFGSM
from keras_probcert.attacks.fgsm import FGSM
from keras_probcert.attacks.forge import Forge
from keras_probcert.attacks.gaussian_noise import GaussianNoise
from keras_probcert.attacks.gradient_attack import GradientAttack
from keras_probcert.attacks.jitter import Jitter
from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.attacks.nifgsm import NIFGSM
from keras_probcert.attacks.one_pixel import OnePixel
from keras_probcert.attacks.pgd import PGD
from keras_probcert.attacks.pgdl2 import PGDL2
from keras_probcert.attacks.pixle import Pixle
from keras_probcert.attacks.projected_gradient import ProjectedGradient
from keras_probcert.attacks.rfgsm import RFGSM
from keras_probcert.attacks.sinifgsm import SINIFGSM
from keras_probcert.attacks.smoothed_pgd import SmoothedPGD
from keras_probcert.attacks.square import Square
from keras_probcert.attacks.survivors import SurvivorAttack
from keras_probcert.attacks.table_9 import TABLE_9
from keras_probcert.attacks.tifgsm import TIFGSM
from keras_probcert.attacks.tpgd import TPGD
from keras_probcert.attacks.upgd import UPGD
from keras_probcert.attacks.vmifgsm import VMIFGSM
from keras_probcert.attacks.vnifgsm import VNIFGSM
from keras_probcert.attacks.vote_search import VoteSearch

__all__ = [
    "APGD",
    "APGDT",
    "Attack",
    "AttackEvaluation",
    "AttackSuite",
    "AutoAttack",
    "BIM",
    "CW",
    "CertificateAttack",
    "DIFGSM",
    "Deny",
    "EOTPGD",
    "FAB",
    "FFGSM",
    "FGSM",
    "Forge",
    "GaussianNoise",
    "GradientAttack",
    "Jitter",
    "MIFGSM",
    "NIFGSM",
    "OnePixel",
    "PGD",
    "PGDL2",
    "Pixle",
    "ProjectedGradient",
    "RFGSM",
    "SINIFGSM",
    "SmoothedPGD",
    "Square",
    "SurvivorAttack",
    "TABLE_9",
    "TIFGSM",
    "TPGD",
    "UPGD",
    "VMIFGSM",
    "VNIFGSM",
    "VoteSearch",
    "attack_suite",
    "evaluate_attack",
]
