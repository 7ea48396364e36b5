"""Attacks: searches for inputs near an input that a model gets wrong."""

from keras_probcert.attacks.projected_gradient import ProjectedGradient

__all__ = ["ProjectedGradient"]
