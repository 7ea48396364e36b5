"""The paper's networks, as functions that return Keras models."""

from keras_probcert.architectures.basic_convnet import basic_convnet

__all__ = ["basic_convnet"]
