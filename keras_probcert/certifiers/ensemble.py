"""Ensembles of base models, which vary less under noise than one of them."""

import keras
from keras import ops

from keras_probcert import backend, models
from keras_probcert.validation import check_integer


@keras.saving.register_keras_serializable(package="keras_probcert")
class LogitEnsemble(keras.Model):
    """Answers with the mean of its members' logits.

    The mean varies less under noise than the logits of one member, so its class wins
    more of the votes and radii grow. It is a base model like any other: a certificate
    of a `SmoothedClassifier` around it holds for exactly this ensemble, `consensus`
    included, and for no single member.

    With `consensus=K` the first K members are asked first; on rows where they agree
    on the class, the answer is the mean of their logits, and only the other rows go
    to the rest of the members. Most noisy copies of an input that can be certified
    are easy, so this costs little more than K members. Where shapes are fixed (on
    JAX, under XLA) every member sees every row: same answers, nothing saved.

    Args:
        models: a list of Keras classifiers with one input shape and one number of
            classes: logits or softmax `(rows, classes)`, or one unit (two classes).
            Of probabilities the logits are taken (see `keras_probcert.models.logits`).
        consensus: K, at least 2 and at most the number of members; `None` (default)
            to ask all of them about every row.
        from_logits: whether outputs that end in no known activation are logits;
            by default they are, and a single unit is an error.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if `models` is empty or holds something else, the members differ
            in their inputs or classes, or `consensus` is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> members = [
    ...     keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    ...     for _ in range(3)]
    >>> ensemble = LogitEnsemble(members, consensus=2)
    >>> ensemble.predict(np.random.rand(5, 4), verbose=0).shape
    (5, 3)

    Reference:

    - Horváth, Müller, Fischer and Vechev, "Boosting Randomized Smoothing with
      Variance Reduced Classifiers" (ICLR 2022), sections 4 and 6 (K-consensus).
    """

    def __init__(self, models, consensus=None, from_logits=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        _check_members(models)
        if consensus is not None:
            consensus = check_integer("consensus", consensus, least=2)
            if consensus > len(models):
                raise ValueError(
                    "`consensus` must be at most the number of members, "
                    f"{len(models)}. Received: consensus={consensus}"
                )
        self.members = list(models)
        self.consensus = consensus
        self.from_logits = from_logits
        shape = _row_shape(self.members)
        if shape is not None:
            self.build((None, *shape))

    def build(self, input_shape):
        classes = set()
        for member in self.members:
            models.build(member, input_shape)
            classes.add(models.classes(member, tuple(input_shape)[1:]))
        if len(classes) > 1:
            raise ValueError(
                "`models` must share one number of classes. "
                f"Received: {sorted(classes)} classes"
            )
        (self.num_classes,) = classes
        self.built = True

    def call(self, inputs, training=False):
        """Mean logits `(rows, classes)`; the members are asked, never trained."""
        first = self.consensus or len(self.members)
        logits = self._logits(self.members[:first], inputs)
        mean = ops.mean(logits, axis=0)
        if first == len(self.members):
            return mean
        labels = ops.argmax(logits, axis=-1)
        disagree = ops.any(labels != labels[:1], axis=0)
        asked = first * mean

        def mean_of_all(asked, rows):
            others = self._logits(self.members[first:], rows)
            return (asked + ops.sum(others, axis=0)) / len(self.members)

        if backend.STATIC_SHAPES:
            revised = mean_of_all(asked, inputs)
        else:
            # The first row is always among them: many layers fail on no rows.
            rows = ops.cast(ops.nonzero(disagree)[0], "int32")
            rows = ops.concatenate([ops.zeros((1,), "int32"), rows])
            some = mean_of_all(
                backend.gather(asked, rows), backend.gather(inputs, rows)
            )
            revised = ops.scatter_update(mean, rows[:, None], some)
        return ops.where(disagree[:, None], revised, mean)

    def _logits(self, members, x):
        """Their logits, float32 `(members, rows, classes)`."""

        def logits(member):
            known = models.gives_probabilities(models.last_activation(member))
            return models.logits(member, None if known else self.from_logits)(x)

        return ops.stack([logits(member) for member in members])

    def compute_output_spec(self, inputs, training=False):
        if not self.built:
            self.build(inputs.shape)
        return keras.KerasTensor((inputs.shape[0], self.num_classes), "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "models": [keras.saving.serialize_keras_object(m) for m in self.members],
            "consensus": self.consensus,
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        members = [
            keras.saving.deserialize_keras_object(m, custom_objects=custom_objects)
            for m in config["models"]
        ]
        return cls(**{**config, "models": members})


def _check_members(members):
    if not isinstance(members, (list, tuple)) or not members:
        raise ValueError(
            "`models` must be a non-empty list of Keras classifiers. "
            f"Received: models={members!r}"
        )
    for member in members:
        models.check_classifier(member)


def _row_shape(members):
    """The shape of one input of all members, `None` if none of them knows it."""
    shapes = {models.row_shape(member) for member in members} - {None}
    if len(shapes) > 1:
        raise ValueError(
            f"`models` must share one input shape. Received: {sorted(shapes)}"
        )
    return next(iter(shapes), None)
