"""Smoothing over the parameter of a transformation, such as a change of brightness."""

import keras
import numpy as np
from keras import ops

from keras_probcert.certifiers.smoothed_classifier import SmoothedClassifier
from keras_probcert.certifiers.smoothing_noise import GaussianNoise
from keras_probcert.certifiers.transformations import (
    RandomTransformation,
    check_transformation,
)


class _ParameterNoise(GaussianNoise):
    """Gaussian noise on parameters: the same radius, in their units."""

    def __init__(self, transformation, sigma):
        super().__init__(sigma)
        self.transformation = check_transformation(transformation)

    @property
    def perturbation(self):
        return RandomTransformation(self.transformation, self.sigma)

    def get_config(self):
        transformation = keras.saving.serialize_keras_object(self.transformation)
        return {"sigma": self.sigma, "transformation": transformation}


@keras.saving.register_keras_serializable(package="keras_probcert")
class ParameterSmoothedClassifier(SmoothedClassifier):
    r"""Certifies against a transformation, with a radius for its parameter.

    The smoothed classifier g answers with the class that the base model is most likely
    to give on \(\psi_\beta(x)\), \(\beta \sim N(0, \sigma^2 I)\). Where the family
    composes, smoothing at \(\psi_\gamma(x)\) is smoothing over \(\beta + \gamma\), and
    the theorem of Gaussian smoothing holds for the parameter: with probability at least
    1 − alpha over the noise that is drawn, the row is abstained on, or g answers with
    `label` on \(\psi_\gamma(x)\) for every γ (of `CyclicShift` every whole γ) with

    \[\|\gamma\|_2 < \tfrac\sigma2\left(\Phi^{-1}(\underline{p}_A) -
    \Phi^{-1}(\overline{p}_B)\right).\]

    The results then have the `guarantee` `"certified"`. It is about this transformation
    alone, without clipping or rounding after it.

    Rotation and translation with interpolation do not compose: \(\psi_\beta(
    \psi_\gamma(x)) = \psi_{\beta + \gamma}(x) + \epsilon\). Fischer et al. make the
    base robust to ε by L2 smoothing inside the smoothing over β, and bound ε in one of
    two ways: DistSPT by its quantile over the data, so that the guarantee holds with a
    probability over inputs; IndivSPT for the one given input, over all γ that are to be
    covered, which alone certifies that input. Neither is done here. For such families
    `label` is still g's answer on x itself with probability at least 1 − alpha, but
    the radius ignores ε: `guarantee` is `"heuristic"`, and `certified` is False in
    every row.

    Args:
        model: a Keras classifier, see `SmoothedClassifier`. It should be trained on
            `RandomTransformation(transformation, sigma)`, as by `training.get("da")`.
        transformation: a `Transformation`: `Brightness`, `Contrast`, `Gamma` and
            `CyclicShift` compose; `InterpolatedRotation` and `InterpolatedTranslation`
            do not.
        sigma: the standard deviation of each parameter, in the parameter's units, more
            than 0.
        n0, n, alpha, bound, forward_batch_size, from_logits, jit_compile, **kwargs: see
            `SmoothedClassifier`.

    Raises:
        ValueError: as in `SmoothedClassifier`, and if `transformation` is something
            else.

    Example:

    >>> import keras
    >>> from keras_probcert.certifiers import Brightness
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> smoothed = ParameterSmoothedClassifier(base, Brightness(), sigma=0.2, n=1000)
    >>> result = smoothed.predict(np.random.rand(2, 4), seed=0, verbose=0)
    >>> result["radius"].shape, result["guarantee"].tolist()
    ((2,), ['certified', 'certified'])

    Reference:

    - Fischer, Baader and Vechev, "Certified Defense to Image Transformations via
      Randomized Smoothing" (NeurIPS 2020), theorem 3.2 and section 4.
    """

    def __init__(
        self,
        model,
        transformation,
        sigma,
        n0=100,
        n=100_000,
        alpha=0.001,
        bound="one-sided",
        forward_batch_size=2048,
        from_logits=None,
        jit_compile=None,
        **kwargs,
    ):
        super().__init__(
            model,
            noise=_ParameterNoise(transformation, sigma),
            n0=n0,
            n=n,
            alpha=alpha,
            bound=bound,
            forward_batch_size=forward_batch_size,
            from_logits=from_logits,
            jit_compile=jit_compile,
            **kwargs,
        )
        self.transformation = transformation

    @property
    def guarantee(self):
        """`"certified"` where the transformation composes, else `"heuristic"`."""
        return "certified" if self.transformation.composes else "heuristic"

    def certify(self, draw_votes, refused):
        results = super().certify(draw_votes, refused)
        if not self.transformation.composes:
            results["certified"] = ops.zeros_like(results["certified"])
        return results

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None, seed=None
    ):
        """Labels and radii of the parameter, one row per input.

        Args:
            x, batch_size, verbose, steps, callbacks, seed: see
                `SmoothedClassifier.predict`.

        Returns:
            The dict of `SmoothedClassifier.predict`, `radius` in units of the
            parameter, and with it `guarantee`, `"certified"` or `"heuristic"` in every
            row.

        Raises:
            ValueError: as there, and if `x` is not in the transformation's `domain`.
        """
        return super().predict(x, batch_size, verbose, steps, callbacks, seed)

    def _finish(self, results, verbose):
        return self._with_guarantee(super()._finish(results, verbose))

    def predict_adaptively(self, x, *args, **kwargs):
        """See `SmoothedClassifier.predict_adaptively`; with `guarantee`."""
        return self._with_guarantee(super().predict_adaptively(x, *args, **kwargs))

    def _with_guarantee(self, results):
        results["guarantee"] = np.full(len(results["label"]), self.guarantee)
        if not self.transformation.composes:
            results["certified"] = np.zeros(len(results["label"]), bool)
        return results

    def at_radius(self, radius, alpha=None, max_samples=None, test=None):
        """See `SmoothedClassifier.at_radius`.

        Raises:
            ValueError: as there, and if the transformation does not compose: what
                would be certified there is not proven.
        """
        if not self.transformation.composes:
            raise ValueError(
                "`transformation` must compose for a certificate at a radius. "
                f"Received: transformation={self.transformation!r}"
            )
        return super().at_radius(radius, alpha, max_samples, test)

    def _summary(self, results, y, right):
        values = super()._summary(results, y, right)
        if self.transformation.composes:
            return values
        # Nothing that is called certified.
        names = {
            "certified_accuracy": "smoothed_accuracy",
            "average_certified_radius": "average_heuristic_radius",
        }
        return {names.get(name, name): value for name, value in values.items()}

    def get_config(self):
        config = super().get_config()
        del config["norm"]  # Always L2.
        return config
