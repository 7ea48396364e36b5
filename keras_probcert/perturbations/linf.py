"""The L∞ ball."""

import keras

from keras_probcert.perturbations.perturbation import Perturbation
from keras_probcert.validation import check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class LInf(Perturbation):
    """Uniform in the L∞ ball: every coordinate moves by at most `epsilon`.

    Args:
        epsilon: the radius, in units of the input, at least 0.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        clip_mode: how a copy meets `clip`. `"clamp"` (default): sample in the
            ball, then clamp. `"intersect"`: sample uniformly in ball ∩ box.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import numpy as np
    >>> t = LInf(8 / 255)(np.ones((1, 32, 32, 3), "float32"))
    >>> tuple(t.shape)
    (1, 32, 32, 3)

    Reference:

    - Table 6 of "Towards Certified Probabilistic Robustness with High
      Accuracy" (arXiv 2309.00879): ε = 0.1 or 0.3 on MNIST, 2/255 or 8/255 on
      SVHN and CIFAR.
    """

    def __init__(self, epsilon, clip=(0.0, 1.0), clip_mode="clamp"):
        super().__init__(clip)
        self.epsilon = check_number("epsilon", epsilon)
        if clip_mode not in ("clamp", "intersect"):
            raise ValueError(
                "`clip_mode` must be 'clamp' or 'intersect'. "
                f"Received: clip_mode={clip_mode!r}"
            )
        self.clip_mode = clip_mode

    def sample(self, x, noise):
        if self.clip_mode == "clamp" or self.clip is None:
            step = noise.uniform(x.shape[2:], -self.epsilon, self.epsilon)
            return self.clamp(x + step)
        low = self.clamp(x - self.epsilon)
        high = self.clamp(x + self.epsilon)
        return self.clamp(low + (high - low) * noise.uniform(x.shape[2:]))

    def get_config(self):
        return {
            "epsilon": self.epsilon,
            **super().get_config(),
            "clip_mode": self.clip_mode,
        }
