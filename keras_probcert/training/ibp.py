"""Certified training by interval bound propagation."""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_probcert import models
from keras_probcert.training.interval_bounds import (
    Interval,
    affine,
    bounded_layers,
    last_dense,
    propagate,
    worst_logits,
)
from keras_probcert.training.schedules import Schedule, SmoothedRamp, check_radius
from keras_probcert.training.training_method import TrainingMethod
from keras_probcert.validation import check_bool, check_fraction, check_number


@keras.saving.register_keras_serializable(package="keras_probcert")
class IBPModel(TrainingMethod):
    r"""Trains on proven bounds of the loss over each L∞ ball.

    Interval bounds go through the base layer by layer. With \(\hat z\) the worst
    logits they allow, \(\hat z_k = \max_{x'} (z_k - z_y)\), bounded through the
    last Dense layer as a whole (Gowal's "elision"; where the model ends in
    another layer, \(\hat z\) is the upper bound of each logit and the lower bound
    of \(z_y\)), minimizes

    \[c\, \ell(h(x), y) + (1 - c)\, \ell(\hat z, y)
      + r \left(1 - \frac{\epsilon}{\epsilon_{\max}}\right)
      (L_{\text{tightness}} + L_{\text{ReLU}}).\]

    The defaults are Shi's short warm-up: c = 0, ε along a `SmoothedRamp`, r = 0.5
    with tolerance τ = 0.5. Over the m ReLU layers with mean half widths
    \(\Delta_i\) (\(\Delta_0\) of the input),

    \[L_{\text{tightness}} = \frac1{\tau m} \sum_i \max(0, \tau -
      \Delta_0 / \Delta_i), \quad
      L_{\text{ReLU}} = \frac1{\tau m} \sum_i \sum_{a \in \{\text{mean},
      \text{variance}\}} \max(0, \tau - \min(a_i, 1/a_i)),\]

    \(a_i\) being the share of active over inactive neurons in the mean and the
    variance of the centres. Gowal's training is
    `IBPModel(base, LinearRamp(0, epsilon, …), clean_weight=LinearRamp(1, 0.5, …),
    regularizer_weight=0)`.

    A step costs three passes: values, centres, half widths. BatchNorm normalizes
    all three by the statistics of the values, as Shi's code does, and updates its
    statistics by the clean rows; Dropout drops the same entries of all three. The
    regularizers are shares over a batch: under `tf.distribute` each replica takes
    those of its own rows. What layers add to the losses is not counted. The
    compiled metrics are of the clean rows.

    `initialize_for_ibp` is Shi's initialization; the paper further has BatchNorm
    after every layer (`cnn7` does), Adam at 5e-4 and gradients clipped to norm 10.

    Args:
        model: the base model, a functional or `Sequential` `keras.Model` of Dense,
            convolution, normalization, pooling, merging and monotone activation
            layers.
        epsilon: ε, the radius in units of the input, at least 0, or a `Schedule`;
            by default 8/255 after a `SmoothedRamp` from epoch 1 to 21 (MNIST: 0.4
            for tests at 0.3).
        clean_weight: c in [0, 1], Gowal's κ, or a `Schedule`; 0 by default.
        regularizer_weight: r, at least 0; 0.5 by default. Without a schedule for
            ε the regularizers count for nothing.
        tolerance: τ in (0, 1]; 0.5 by default.
        elide: whether the last Dense layer is bounded together with the
            differences of logits (default), which is tighter.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None`
            for no range.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if an argument is out of its range, or the base has a layer that
            cannot be bounded (the message names it); by `fit`, if the base is so deep
            that its bounds exceed float32, targets are soft, or the loss is not a
            cross-entropy without label smoothing.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)),
    ...     keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)])
    >>> model = IBPModel(base, epsilon=SmoothedRamp(0.1, length=3))
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Gowal et al., "On the Effectiveness of Interval Bound Propagation for
      Training Verifiably Robust Models" (arXiv 1810.12715), equations 6 to 12.
    - Shi, Wang, Zhang, Yi and Hsieh, "Fast Certified Robust Training with Short
      Warmup" (NeurIPS 2021), section 4.
    """

    parts = ("loss_clean", "loss_robust", "regularizer")

    def __init__(
        self,
        model,
        epsilon=None,
        clean_weight=0.0,
        regularizer_weight=0.5,
        tolerance=0.5,
        elide=True,
        clip=(0.0, 1.0),
        **kwargs,
    ):
        if epsilon is None:
            epsilon = SmoothedRamp(8 / 255, length=20, start=1)
        scheduled = {"epsilon": epsilon, "clean_weight": clean_weight}
        _check_weight(clean_weight)
        super().__init__(model, clip=clip, scheduled=scheduled, **kwargs)
        check_radius("epsilon", self.epsilon, self.clip)
        self.regularizer_weight = check_number("regularizer_weight", regularizer_weight)
        self.tolerance = check_fraction("tolerance", tolerance, closed=True)
        self.elide = check_bool("elide", elide)

    def build(self, input_shape):
        super().build(input_shape)
        bounded_layers(self.base_model)

    def _check_batch(self, x, y=None, name="x"):
        super()._check_batch(x, y, name)
        y = np.asarray(y)
        one_hot = y.ndim == 2 and y.shape[1] > 1
        hard = np.isin(y, (0, 1)).all() and (not one_hot or (y.sum(1) == 1).all())
        if (self._units == 1 or one_hot) and not hard:
            raise ValueError(
                "`y` must hold classes or one-hot rows for IBPModel: the loss of soft "
                f"targets is not bounded. Received: y[0]={y[0]}"
            )
        epsilon = self.epsilon
        if isinstance(epsilon, Schedule):
            epsilon = epsilon(epsilon.end)
        box = self._box(ops.convert_to_tensor(x[:1], dtype="float32"), epsilon)
        bounds = propagate(self.base_model, box, last=False)
        if not ops.convert_to_numpy(ops.isfinite(bounds.upper - bounds.lower)).all():
            raise ValueError(
                "`model` is too deep for interval bounds: at the last `epsilon` they "
                "exceed float32. Take a shallower network, a smaller epsilon, or "
                f"`initialize_for_ibp` first. Received: {self.base_model.name!r}"
            )

    def _box(self, x, epsilon):
        low, high = (-float("inf"), float("inf")) if self.clip is None else self.clip
        # Shi's floor: of no width at all there is no share.
        epsilon = ops.maximum(ops.cast(epsilon, "float32"), 1e-6)
        return Interval(
            x, ops.maximum(x - epsilon, low), ops.minimum(x + epsilon, high)
        )

    def forward(self, x, y):
        epsilon = self.value("epsilon")
        box = self._box(x, epsilon)
        relus = []
        last = last_dense(self.base_model)
        bounds = propagate(self.base_model, box, True, relus, last is None)
        target = self.one_hot(y)
        if last is None:
            values, worst = bounds.value, _worst_outputs(bounds, target)
        elif self.elide and self._units > 1:
            values, worst = worst_logits(last, bounds, target)
        else:
            bounds = affine(last, bounds)
            values, worst = bounds.value, _worst_outputs(bounds, target)
        if last is not None:
            values, worst = last.activation(values), last.activation(worst)
        regularizer = self._regularizer(box, relus, epsilon)
        rows = ops.shape(x)[0]
        return {
            "copies": values[:, None],
            "worst": worst[:, None],
            "regularizer": ops.broadcast_to(regularizer, (rows,)),
        }

    def _check_loss(self, y):
        loss, _ = self._compiled_loss(y)
        smoothing = loss.get_config().get("label_smoothing", 0)
        binary = models.is_binary(loss) and self._units > 1
        if models.takes_logits(loss) is None or smoothing or binary:
            raise ValueError(
                "`loss` must be a cross-entropy of Keras without label smoothing for "
                "IBPModel, which bounds it by the largest differences of logits. "
                f"Received: loss={self.loss}, label_smoothing={smoothing}"
            )

    def objective(self, y, outputs):
        self._check_loss(y)
        clean = self.losses_of(y, outputs["copies"])[:, 0]
        robust = self.losses_of(y, outputs["worst"])[:, 0]
        weight = self.value("clean_weight")
        regularizer = ops.cast(outputs["regularizer"], clean.dtype)
        parts = {
            "loss_clean": clean,
            "loss_robust": robust,
            "regularizer": regularizer,
        }
        return weight * clean + (1.0 - weight) * robust + regularizer, parts

    def _regularizer(self, box, relus, epsilon):
        """Shi's two regularizers, fading while ε grows."""
        ramps = isinstance(self.epsilon, Schedule)
        if not (relus and ramps and self.regularizer_weight):
            return ops.zeros(())
        final = self.epsilon(self.epsilon.end)
        fading = ops.relu(1.0 - epsilon / ops.maximum(final, 1e-6))

        def regularizer():
            input_width = 2 * ops.mean(box.radius)
            total = 0.0
            for interval in relus:
                width = 2 * ops.mean(interval.radius)
                tightness = input_width / ops.maximum(width, 1e-12)
                total += ops.relu(self.tolerance - tightness)
                total += self._imbalance(interval)
            total = total / (self.tolerance * len(relus))
            return ops.cast(self.regularizer_weight * fading * total, "float32")

        # They take a quarter of a step: not once they have faded.
        return ops.cond(fading > 0, regularizer, lambda: ops.zeros(()))

    def _imbalance(self, interval):
        """How far active and inactive neurons are from having equal shares."""
        centre = interval.centre
        active = ops.cast(interval.lower > 0, centre.dtype)
        inactive = ops.cast(interval.upper < 0, centre.dtype)
        square = ops.square(centre - ops.mean(centre))
        shares = (
            (ops.mean(centre * active), ops.mean(-centre * inactive)),
            (ops.mean(square * active), ops.mean(square * inactive)),
        )
        total, counts = 0.0, True
        for a, b in shares:
            larger = ops.maximum(a, b)
            # Without stable neurons there is nothing to balance.
            counts = ops.logical_and(counts, larger > 0)
            ratio = ops.minimum(a, b) / ops.where(larger > 0, larger, 1.0)
            total += ops.relu(self.tolerance - ratio)
        return ops.where(counts, total, 0.0)


def _check_weight(weight):
    ends = [weight]
    if isinstance(weight, Schedule):
        ends = [float(weight(epoch)) for epoch in (0.0, weight.end)]
    for end in ends:
        check_number("clean_weight", end)
        if end > 1:
            raise ValueError(
                f"`clean_weight` must be at most 1. Received: clean_weight={end}"
            )


def _worst_outputs(bounds, target):
    """The upper bound of each wrong class, the lower bound of the right one."""
    if bounds.lower.shape[-1] == 1:
        target = target[:, 1:]
    return target * bounds.lower + (1.0 - target) * bounds.upper


def initialize_for_ibp(model, seed=None):
    r"""Draws the weights of `model` anew so that interval bounds keep their width.

    Kernels of Dense and convolution layers other than the last become
    \(N(0, 2\pi / \text{fan\_in}^2)\), half as large after a residual addition,
    where widths add up. Biases and normalization layers stay as they are.

    Args:
        model: a functional or `Sequential` Keras model that interval bounds can go
            through.
        seed: an int; `None` (default) for Keras' global seed.

    Raises:
        ValueError: if the model has a layer that cannot be bounded.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((784,)),
    ...     keras.layers.Dense(500, activation="relu"), keras.layers.Dense(10)])
    >>> initialize_for_ibp(base, seed=0)
    >>> round(float(base.layers[0].kernel.numpy().std()) * 784, 1)
    2.5

    Reference:

    - Shi, Wang, Zhang, Yi and Hsieh, "Fast Certified Robust Training with Short
      Warmup" (NeurIPS 2021), section 4.1.
    """
    generator = keras.random.SeedGenerator(seed)
    for layer, after_addition in _weighted_layers(model)[:-1]:
        # All that one output sums up.
        depthwise = hasattr(layer, "depth_multiplier")
        fan_in = math.prod(layer.kernel.shape[: -2 if depthwise else -1])
        std = math.sqrt(2 * math.pi) / fan_in * (0.5 if after_addition else 1.0)
        layer.kernel.assign(
            keras.random.normal(layer.kernel.shape, stddev=std, seed=generator)
        )


def _weighted_layers(model):
    """Dense and convolution layers in order, and whether each follows an addition."""
    found, added = [], set()
    for layer, inputs, outputs in bounded_layers(model):
        after = any(tensor in added for tensor in inputs)
        if isinstance(layer, keras.Model):
            found += _weighted_layers(layer)
        elif hasattr(layer, "kernel"):
            found.append((layer, after))
        elif isinstance(layer, layers.Add) or (after and not layer.weights):
            # An activation after an addition does not narrow what it added up.
            added.update(outputs)
    return found
