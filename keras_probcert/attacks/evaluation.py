"""What became of the rows under one attack."""

import dataclasses

import numpy as np

from keras_probcert.metrics import success_rate


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class AttackEvaluation:
    """Per-example results of an attack, and the rates that follow from them.

    Args:
        x_adv: the adversarial examples, `(rows, …)`.
        y: int array `(rows,)`, the true classes.
        clean_label, label: int arrays `(rows,)`, the class predicted at `x` and at
            `x_adv`, −1 for none. A `CertifiedPredictor` predicts by majority vote.
        clean_certified, certified: bool arrays `(rows,)`, whether a certificate was
            given at `x` and at `x_adv`; `None` for a model that gives none.
        seconds: what the attack took, compiling included, judging not.
        forward_passes, backward_passes: what the attack cost, in passes of one row
            through the base model; `None` where it does not say.
        level: the confidence level of the intervals, in (0, 1).

    Example:

    >>> evaluation = AttackEvaluation(
    ...     np.zeros((4, 2)), y=np.array([0, 1, 1, 0]),
    ...     clean_label=np.array([0, 1, 1, 1]), label=np.array([0, 1, 0, 1]))
    >>> evaluation.standard_accuracy.rate, evaluation.defence_success_rate.rate
    (0.75, 0.5)
    """

    x_adv: np.ndarray
    y: np.ndarray
    clean_label: np.ndarray
    label: np.ndarray
    clean_certified: np.ndarray | None = None
    certified: np.ndarray | None = None
    seconds: float = 0.0
    forward_passes: int | None = None
    backward_passes: int | None = None
    level: float = 0.95

    @property
    def defended(self):
        """Rows that are classified as their true class at `x_adv`, bool."""
        return self.label == self.y

    @property
    def deniable(self):
        """Rows that are right and certified at `x`, bool."""
        return self.clean_certified & (self.clean_label == self.y)

    @property
    def denied(self):
        """Rows that are right and certified at `x`, not certified at `x_adv`."""
        return self.deniable & ~self.certified

    @property
    def forged(self):
        """Rows for which a wrong class is certified at `x_adv`, bool."""
        return self.certified & ~self.defended

    @property
    def standard_accuracy(self):
        """The rate of rows that are classified as their true class at `x`.

        Of a `CertifiedPredictor` that is the vote's, where its `evaluate` gives that
        of the base model.
        """
        return success_rate(self.clean_label == self.y, self.level)

    @property
    def defence_success_rate(self):
        """The rate of rows that are classified as their true class at `x_adv`."""
        return success_rate(self.defended, self.level)

    @property
    def denied_rate(self):
        """Of the rows that are right and certified at `x`, how many lose it."""
        return success_rate(self.denied[self.deniable], self.level)

    @property
    def forged_rate(self):
        """The rate of rows for which a wrong class is certified at `x_adv`."""
        return success_rate(self.forged, self.level)

    @property
    def rates(self):
        """All rates by name; those of certificates where there are any."""
        names = ["standard_accuracy", "defence_success_rate"]
        if self.certified is not None:
            names += ["denied_rate", "forged_rate"]
        return {name: getattr(self, name) for name in names}

    def to_dict(self):
        """The figures without the arrays, of Python's own types."""
        rates = {
            key: value
            for name, rate in self.rates.items()
            for key, value in (
                (name, rate.rate),
                (f"{name}_lower", rate.lower),
                (f"{name}_upper", rate.upper),
            )
        }
        return {
            "rows": len(self.y),
            **rates,
            "seconds": self.seconds,
            "forward_passes": self.forward_passes,
            "backward_passes": self.backward_passes,
            "level": self.level,
        }

    def __repr__(self):
        rates = ", ".join(f"{name}={rate}" for name, rate in self.rates.items())
        return (
            f"AttackEvaluation({rates}, seconds={self.seconds:.3g}, "
            f"forward_passes={self.forward_passes}, "
            f"backward_passes={self.backward_passes})"
        )
