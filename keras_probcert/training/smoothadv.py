"""SmoothAdv: adversarial training of the smoothed classifier."""

import keras
from keras import ops

from keras_probcert import backend
from keras_probcert.attacks import ProjectedGradient
from keras_probcert.perturbations import Perturbation
from keras_probcert.training.probabilities import log_mean_exp
from keras_probcert.training.rs import GaussianCopies
from keras_probcert.training.schedules import LinearRamp
from keras_probcert.validation import check_integer


class SmoothedSearch(GaussianCopies):
    """Searches where the mean class probabilities of noisy copies are worst."""

    def __init__(self, model, sigma, num_samples, steps, clip, seed, **kwargs):
        super().__init__(model, sigma, num_samples, None, seed, **kwargs)
        # The noise may leave the range, the points that are searched may not.
        self.clip = Perturbation(clip).clip
        self.steps = check_integer("steps", steps)

    def smoothed_worst_points(self, x, y, seeds, epsilon, step_size):
        """Points near `x` where −log of the mean probability of `y` is largest.

        By L2 steps from `x`, under the noise that `seeds` stand for. The base is
        in inference mode and learns nothing from it.
        """
        search = ProjectedGradient(epsilon, self.steps, step_size, "l2", self.clip)
        base = backend.frozen(self.base_model)
        noise = self.samples(ops.zeros_like(x), seeds)
        target = self.one_hot(y)

        def value(point):
            copies = ops.reshape(point[:, None] + noise, (-1, *x.shape[1:]))
            outputs = ops.reshape(base(copies), (-1, self.num_samples, self._units))
            log_p = self.log_probabilities(y, outputs)
            return -ops.sum(target * log_mean_exp(log_p, axis=1), axis=-1)

        return search(value, x)


@keras.saving.register_keras_serializable(package="keras_probcert")
class SmoothAdvModel(SmoothedSearch):
    r"""Trains the smoothed classifier on the worst points of an L2 ball.

    With noises \(\delta_1, …, \delta_m \sim N(0, \sigma^2 I)\), searches the L2
    ball of radius ε around \(x\), from \(x\) itself, for the \(x'\) of largest
    \(-\log \frac1m \sum_i p_y(x' + \delta_i)\) (the mean of probabilities, not of
    losses), and minimizes the mean loss of \(x' + \delta_i\) under the same
    noises. \(x'\) stays inside `clip`, the noise need not.

    A step costs `steps` passes over m copies for the search and one to train. The
    search sees BatchNorm and Dropout in inference mode, the training pass in
    training mode on the noisy adversarial rows.

    Args:
        model: the base model, a `keras.Model` with one output.
        sigma: σ, the standard deviation of the noise in units of the input, at
            least 0; 0.25 by default.
        epsilon: ε, the radius in L2, at least 0, or a `Schedule`; by default 1.0,
            approached linearly from 0.1 over the first 9 epochs, the paper's
            warm-up of 10 (`LinearRamp(0.1, 1.0, length=9)`).
        num_samples: m, noisy copies of each example, at least 1; 4 by default.
        steps: the number of steps of the search, at least 1; 10 by default, each of
            length 2ε/steps.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        seed: an int that fixes the noise of training; `None` (default) for
            Keras' global seed.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, or the compiled loss is not
            a cross-entropy.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = SmoothAdvModel(base, sigma=0.5, epsilon=0.5, steps=2)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Salman et al., "Provably Robust Deep Learning via Adversarially Trained
      Smoothed Classifiers" (NeurIPS 2019), equation 6, SmoothAdv-PGD.
    """

    def __init__(
        self,
        model,
        sigma=0.25,
        epsilon=None,
        num_samples=4,
        steps=10,
        clip=(0.0, 1.0),
        seed=None,
        **kwargs,
    ):
        if epsilon is None:
            epsilon = LinearRamp(0.1, 1.0, length=9)
        scheduled = {"epsilon": epsilon}
        super().__init__(
            model, sigma, num_samples, steps, clip, seed, scheduled=scheduled, **kwargs
        )

    def forward(self, x, y):
        seeds = self.seeds(ops.shape(x)[0])
        epsilon = self.value("epsilon")
        step_size = 2 * epsilon / self.steps
        worst = self.smoothed_worst_points(x, y, seeds, epsilon, step_size)
        # The same seeds are the same noise.
        return {"copies": self.outputs_of_samples(worst, seeds)}
