"""What turns a model into certificates."""

from keras_probcert.certifiers.certified_predictor import CertifiedPredictor
from keras_probcert.certifiers.decision import Decision
from keras_probcert.certifiers.smoothed_classifier import SmoothedClassifier
from keras_probcert.certifiers.smoothed_predictor import SmoothedPredictor

__all__ = ["CertifiedPredictor", "Decision", "SmoothedClassifier", "SmoothedPredictor"]
