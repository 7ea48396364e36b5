"""Train Keras classifiers that hold still, certify each prediction, serve it."""

from keras_probcert import (
    certifiers,
    distributed,
    perturbations,
    sequential,
    training,
)
from keras_probcert.certifiers import (
    CertifiedPredictor,
    Decision,
    SmoothedClassifier,
    SmoothedPredictor,
    forward_rate,
)
from keras_probcert.distributed import certify_dataset, load_certificates
from keras_probcert.perturbations import (
    L0,
    L1,
    L2,
    Affine,
    Composition,
    Gaussian,
    Laplace,
    LInf,
    Perturbation,
    Rotation,
    Scale,
    Translation,
)
from keras_probcert.seeds import row_seeds
from keras_probcert.sequential import (
    SPRT,
    Algorithm2Test,
    BetaMixtureTest,
    BettingTest,
    ClopperPearsonTest,
    ExactTest,
    SequentialTest,
    UnionBoundTest,
    plan_certification,
)
from keras_probcert.training import VarianceMinimizingModel
from keras_probcert.version import __version__

__all__ = [
    "SPRT",
    "Affine",
    "Algorithm2Test",
    "BetaMixtureTest",
    "BettingTest",
    "CertifiedPredictor",
    "ClopperPearsonTest",
    "Composition",
    "Decision",
    "ExactTest",
    "Gaussian",
    "L0",
    "L1",
    "L2",
    "LInf",
    "Laplace",
    "Perturbation",
    "Rotation",
    "Scale",
    "SequentialTest",
    "SmoothedClassifier",
    "SmoothedPredictor",
    "Translation",
    "UnionBoundTest",
    "VarianceMinimizingModel",
    "__version__",
    "certifiers",
    "certify_dataset",
    "distributed",
    "forward_rate",
    "load_certificates",
    "perturbations",
    "plan_certification",
    "row_seeds",
    "sequential",
    "training",
]
