"""Training methods: Keras models around a base model."""

from keras_probcert.training.variance_minimizing import VarianceMinimizingModel

__all__ = ["VarianceMinimizingModel"]
