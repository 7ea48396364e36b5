"""AutoAttack: four attacks without parameters to tune, one after the other."""

import warnings

from keras import ops

from keras_probcert import models
from keras_probcert.attacks import reliability
from keras_probcert.attacks.apgd import APGD
from keras_probcert.attacks.apgdt import APGDT
from keras_probcert.attacks.attack import Attack, wide
from keras_probcert.attacks.certificate_attack import CertificateAttack
from keras_probcert.attacks.fab import FAB
from keras_probcert.attacks.square import Square
from keras_probcert.attacks.survivors import SurvivorAttack
from keras_probcert.validation import check_choice, check_number

_VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "custom": None,
}


class AutoAttack(SurvivorAttack):
    r"""The usual yardstick of robustness: an ensemble of attacks on the survivors.

    The settings are those of Croce and Hein's code. Each part attacks the rows that
    those before it left classified right:

    - `"standard"`: `"apgd-ce"`, APGD on the cross-entropy with 100 steps;
      `"apgd-t"`, APGDT with 100 steps towards each of at most 9 classes; `"fab-t"`,
      targeted FAB with 100 steps for each of at most 9; `"square"`, Square with 5,000
      queries. In L1, APGD has 5 restarts and APGDT 5 classes, both through large
      radii.
    - `"plus"`: `"apgd-ce"`, `"apgd-dlr"` and untargeted `"fab"`, with 5 restarts each,
      `"square"`, `"apgd-t"` and `"fab-t"`, with 9 classes and without large radii in
      every norm.
    - `"rand"`, for models that draw random numbers: `"apgd-ce"` and `"apgd-dlr"`, each
      step along the mean of 20 gradients; on TensorFlow alone.
    - `"custom"`: what `attacks` says.

    A row has the same noise in every part as when that part is run alone with the
    same seed, so the robust accuracy is never above that of a part (but for the
    rounding of sums, which may depend on the batch).

    What a part cannot attack is left to the others, with a warning: APGD on the DLR
    loss needs three classes and APGDT four, Square needs images. Warnings also tell
    of models that end in a softmax (whose logits are attacked), give probabilities
    for logits, draw random numbers, have rows without a gradient, or that Square
    fools where gradients did not help.

    Args:
        norm: `"linf"` (default), `"l2"` or `"l1"`.
        epsilon: the radius, in units of the input, above 0; 8/255 by default (MNIST:
            0.3).
        version: `"standard"` (default), `"plus"`, `"rand"` or `"custom"`.
        attacks: for `"custom"`, a list of names from above, set as in `"standard"`, or
            of `Attack`s with the same norm and clip and at most this radius; `None`
            (default) otherwise.
        clip: `(low, high)`, the valid input range, `(0, 1)` by default; `None` for
            no range.

    Raises:
        ValueError: if an argument is out of its range. When called: if no part can
            attack the model.

    Example:

    >>> import keras, numpy as np
    >>> flatten, dense = keras.layers.Flatten(), keras.layers.Dense(5)
    >>> model = keras.Sequential([keras.Input((6, 6, 1)), flatten, dense])
    >>> x = np.random.rand(5, 6, 6, 1).astype("float32")
    >>> attack = AutoAttack(
    ...     epsilon=0.1, version="custom", attacks=["apgd-ce", "fab-t"]
    ... )
    >>> x_adv = attack(model, x, y=[0, 1, 2, 3, 4], seed=0)
    >>> bool(np.abs(x_adv - x).max() <= 0.1 + 1e-6)
    True

    Reference:

    - Croce and Hein, "Reliable evaluation of adversarial robustness with an
      ensemble of diverse parameter-free attacks" (ICML 2020), section 6.
    - Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
      classifiers" (ICML 2021), section 5, for L1.
    """

    # `reliability` looks at every row, not only whether there is one.
    uses_gradients = False

    def __init__(
        self,
        norm="linf",
        epsilon=8 / 255,
        version="standard",
        attacks=None,
        clip=(0.0, 1.0),
    ):
        super().__init__(check_number("epsilon", epsilon), norm, clip)
        self.version = check_choice("version", version, _VERSIONS)
        if (version == "custom") != (attacks is not None):
            raise ValueError(
                "`attacks` must be given for version='custom', and only then. "
                f"Received: version={version!r}, attacks={attacks!r}"
            )
        if attacks is not None and not (
            isinstance(attacks, (list, tuple)) and len(attacks)
        ):
            raise ValueError(
                "`attacks` must be a list of names or Attacks, at least one. "
                f"Received: attacks={attacks!r}"
            )
        self.parts = [self._part(part) for part in _VERSIONS[version] or tuple(attacks)]

    def _part(self, part):
        """A pair of a name and an attack."""
        if isinstance(part, Attack):
            if (
                isinstance(part, CertificateAttack)
                or (part.norm, part.clip) != (self.norm, self.clip)
                or part.epsilon is None
                or part.epsilon > self.epsilon
            ):
                raise ValueError(
                    "`attacks` must attack the model, not a certificate, and have the "
                    "norm, the clip and at most the epsilon of AutoAttack. "
                    f"Received: {type(part).__name__} with "
                    f"norm={part.norm!r}, epsilon={part.epsilon}, clip={part.clip}"
                )
            return type(part).__name__, part
        plus = self.version == "plus"
        sparse = self.norm == "l1" and self.version in ("standard", "custom")
        ball = {"epsilon": self.epsilon, "norm": self.norm, "clip": self.clip}
        apgd = {"steps": 100, "large_radii": sparse, **ball}
        untargeted = {
            "restarts": 5 if plus or sparse else 1,
            "eot_iter": 20 if self.version == "rand" else 1,
            **apgd,
        }
        makers = {
            "apgd-ce": lambda: APGD(**untargeted),
            "apgd-dlr": lambda: APGD(loss="dlr", **untargeted),
            "apgd-t": lambda: APGDT(targets=5 if sparse else 9, **apgd),
            "fab": lambda: FAB(steps=100, restarts=5, **ball),
            "fab-t": lambda: FAB(steps=100, targeted=True, **ball),
            "square": lambda: Square(rescale_schedule=False, **ball),
        }
        return part, makers[check_choice("attacks", part, makers)]()

    def attempts(self, model, from_logits, x, y, seeds, batch_size):
        parts = self._able(models.classes(model, x.shape[1:]), x)

        def attempt(rows, part, last):
            arrays = x[rows], y[rows], seeds[rows], batch_size
            found = part._found(model, from_logits, *arrays)
            # Square leaves rows that it does not fool as they were.
            if isinstance(part, Square) and last and len(parts) > 1:
                changed = found.reshape(len(rows), -1) != arrays[0].reshape(
                    len(rows), -1
                )
                reliability.warn_of_square(changed.any(axis=1).sum(), len(x))
            return found

        for part in parts:
            yield lambda rows, part=part: attempt(rows, part, part is parts[-1])

    def _able(self, classes, x):
        """The parts that can attack a model of so many classes on such inputs."""
        able, reasons = [], []
        for name, part in self.parts:
            if classes < part.least_classes:
                reasons.append(
                    f"{name} needs {part.least_classes} classes, not {classes}"
                )
            elif part.needs_images and x.ndim != 4:
                reasons.append(f"{name} needs images, not shape {x.shape}")
            else:
                able.append(part)
        if not able:
            raise ValueError(
                "`model` and `x` must be something that a part can attack. "
                f"Received: {'; '.join(reasons)}"
            )
        if reasons:
            warnings.warn(
                f"Parts of AutoAttack are left out: {'; '.join(reasons)}.",
                UserWarning,
                stacklevel=2,
            )
        return able

    def _found(self, model, from_logits, x, y, seeds, batch_size):
        some_x = ops.convert_to_tensor(wide(x[:batch_size]))
        logits = models.logits(model, from_logits)
        reliability.warn_of_probabilities(model, from_logits, some_x)
        if self.version != "rand":
            reliability.warn_of_randomness(logits, some_x)
        reliability.warn_of_zero_gradients(logits, some_x, y[:batch_size])
        return super()._found(model, from_logits, x, y, seeds, batch_size)
