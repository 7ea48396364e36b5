"""What turns a model into certificates."""

from keras_probcert.certifiers.certified_predictor import CertifiedPredictor
from keras_probcert.certifiers.decision import Decision
from keras_probcert.certifiers.denoised import (
    OneStepDenoiser,
    denoised_classifier,
    diffusion_step,
)
from keras_probcert.certifiers.dsrs_classifier import DSRSClassifier
from keras_probcert.certifiers.ensemble import LogitEnsemble
from keras_probcert.certifiers.forward_rate import forward_rate
from keras_probcert.certifiers.parameter_smoothing import ParameterSmoothedClassifier
from keras_probcert.certifiers.radius_report import (
    certified_accuracy_table,
    plot_certified_accuracy,
    read_log,
    write_log,
)
from keras_probcert.certifiers.smoothed_classifier import SmoothedClassifier
from keras_probcert.certifiers.smoothed_predictor import SmoothedPredictor
from keras_probcert.certifiers.splitting_noise import (
    SplittingNoise,
    SplittingSmoothedClassifier,
)
from keras_probcert.certifiers.transformations import (
    Brightness,
    Contrast,
    CyclicShift,
    Gamma,
    InterpolatedRotation,
    InterpolatedTranslation,
    RandomTransformation,
    Transformation,
)

__all__ = [
    "Brightness",
    "CertifiedPredictor",
    "Contrast",
    "CyclicShift",
    "DSRSClassifier",
    "Decision",
    "Gamma",
    "InterpolatedRotation",
    "InterpolatedTranslation",
    "LogitEnsemble",
    "OneStepDenoiser",
    "ParameterSmoothedClassifier",
    "RandomTransformation",
    "SmoothedClassifier",
    "SmoothedPredictor",
    "SplittingNoise",
    "SplittingSmoothedClassifier",
    "Transformation",
    "certified_accuracy_table",
    "denoised_classifier",
    "diffusion_step",
    "forward_rate",
    "plot_certified_accuracy",
    "read_log",
    "write_log",
]
