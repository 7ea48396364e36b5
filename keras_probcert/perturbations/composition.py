"""One perturbation after another."""

import keras

from keras_probcert.perturbations.perturbation import Perturbation, get


@keras.saving.register_keras_serializable(package="keras_probcert")
class Composition(Perturbation):
    """Applies perturbations one after another, each with noise of its own.

    Args:
        perturbations: a non-empty list of perturbations with the same `clip`,
            the first one applied first.

    Raises:
        ValueError: if the list is empty, holds something else, or the ranges
            differ.

    Example:

    >>> import numpy as np
    >>> images = np.random.rand(4, 28, 28, 1).astype("float32")
    >>> tuple(Composition([Rotation(35), LInf(0.1)])(images).shape)
    (4, 28, 28, 1)
    """

    def __init__(self, perturbations):
        if not isinstance(perturbations, (list, tuple)) or not perturbations:
            raise ValueError(
                "`perturbations` must be a non-empty list of perturbations. "
                f"Received: perturbations={perturbations!r}"
            )
        self.perturbations = [get(p) for p in perturbations]
        clips = {p.clip for p in self.perturbations}
        if len(clips) > 1:
            raise ValueError(
                "`perturbations` must share one valid input range `clip`. "
                f"Received: {sorted(clips, key=str)}"
            )
        super().__init__(self.perturbations[0].clip)

    def check_shape(self, shape):
        for perturbation in self.perturbations:
            perturbation.check_shape(shape)

    def sample(self, x, noise):
        for perturbation in self.perturbations:
            x = perturbation.sample(x, noise)
        return x

    def __repr__(self):
        return f"Composition({self.perturbations!r})"

    def get_config(self):
        return {
            "perturbations": [
                keras.saving.serialize_keras_object(p) for p in self.perturbations
            ]
        }
