"""The paper's networks and a small one, as functions that return Keras models."""

from keras_probcert.architectures.basic_convnet import basic_convnet
from keras_probcert.architectures.cnn7 import cnn7
from keras_probcert.architectures.resnet import (
    cifar_resnet110,
    resnet18,
    wide_resnet8,
)
from keras_probcert.architectures.small_convnet import small_convnet

__all__ = [
    "basic_convnet",
    "cifar_resnet110",
    "cnn7",
    "resnet18",
    "small_convnet",
    "wide_resnet8",
]
