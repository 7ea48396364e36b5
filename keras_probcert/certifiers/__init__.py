"""What turns a model into certificates."""

from keras_probcert.certifiers.certified_predictor import CertifiedPredictor
from keras_probcert.certifiers.decision import Decision

__all__ = ["CertifiedPredictor", "Decision"]
