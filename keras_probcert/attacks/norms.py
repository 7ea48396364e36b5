"""The norms that bound a perturbation: steepest steps, projections, lengths."""

import math

import numpy as np
from keras import ops

from keras_probcert.perturbations import L1, L2, LInf
from keras_probcert.validation import check_choice


class LInfNorm:
    """The largest coordinate."""

    unit_ball = LInf(1.0, clip=None)

    def length(self, step):
        """The norm of each row, `(rows, 1, …)`."""
        return ops.max(ops.abs(step), axis=_row_axes(step), keepdims=True)

    def direction(self, gradient):
        """The steepest step of length 1, row by row; zero where there is none."""
        return ops.sign(_finite(gradient))

    def project(self, step, epsilon):
        """The closest step of length `epsilon` at most."""
        return ops.clip(step, -epsilon, epsilon)


class L2Norm:
    """The Euclidean length."""

    unit_ball = L2(1.0, clip=None)

    def length(self, step):
        """The norm of each row, `(rows, 1, …)`."""
        # Keras' sum over an empty tuple of axes or more than seven fails.
        flat = ops.reshape(step, (-1, math.prod(step.shape[1:])))
        norm = ops.sqrt(ops.sum(ops.square(flat), axis=1))
        return ops.reshape(norm, (-1, *[1] * (len(step.shape) - 1)))

    def direction(self, gradient):
        """The steepest step of length 1, row by row; zero where there is none."""
        # Scaled first, since the squares of small gradients vanish in float32.
        gradient = _finite(gradient)
        largest = ops.max(ops.abs(gradient), axis=_row_axes(gradient), keepdims=True)
        gradient = gradient / ops.where(largest > 0, largest, 1.0)
        return gradient / ops.maximum(self.length(gradient), 0.5)

    def project(self, step, epsilon):
        """The closest step of length `epsilon` at most."""
        length = self.length(step)
        far = length > epsilon
        return step * ops.where(far, epsilon / ops.where(far, length, 1.0), 1.0)


class L1Norm:
    """The sum of the coordinates' absolute values."""

    unit_ball = L1(1.0, clip=None)

    def length(self, step):
        """The norm of each row, `(rows, 1, …)`."""
        return ops.sum(ops.abs(step), axis=_row_axes(step), keepdims=True)

    def direction(self, gradient):
        """The steepest step of length 1: along the largest coordinates alone."""
        gradient = _finite(gradient)
        size = ops.abs(gradient)
        largest = ops.max(size, axis=_row_axes(size), keepdims=True)
        step = ops.where(size == largest, ops.sign(gradient), 0.0)
        return step / ops.maximum(self.length(step), 1.0)

    def project(self, step, epsilon):
        """The closest step of length `epsilon` at most."""
        # Each coordinate shrinks by the same threshold, which the sorted sizes give.
        flat = ops.reshape(ops.abs(step), (-1, math.prod(step.shape[1:])))
        sizes = ops.flip(ops.sort(flat, axis=1), axis=1)
        count = ops.arange(1, flat.shape[1] + 1, dtype=step.dtype)
        excess = (ops.cumsum(sizes, axis=1) - epsilon) / count
        threshold = ops.max(excess, axis=1)
        threshold = ops.reshape(threshold, (-1, *[1] * (len(step.shape) - 1)))
        return ops.sign(step) * ops.maximum(
            ops.abs(step) - ops.maximum(threshold, 0.0), 0.0
        )


NORMS = {"linf": LInfNorm(), "l2": L2Norm(), "l1": L1Norm()}


def get(name):
    """The norm of this name: `"linf"`, `"l2"` or `"l1"`."""
    return NORMS[check_choice("norm", name, NORMS)]


def lengths(step, name):
    """The norm of this name of each row of a NumPy array, `(rows,)`."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[name]
    return np.linalg.norm(step.reshape(len(step), -1), order, axis=1)


def _row_axes(x):
    return tuple(range(1, len(x.shape)))


def _finite(gradient):
    return ops.where(ops.isfinite(gradient), gradient, 0.0)
