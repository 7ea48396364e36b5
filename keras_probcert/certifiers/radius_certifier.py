"""What certifiers share whose answer is a label with a radius."""

import math

import keras

from keras_probcert.certifiers.certifier import Certifier


class RadiusCertifier(Certifier):
    """Answers each row with a label, −1 where abstained, and a radius."""

    # Copies that share a loop: enough to fill it, few enough to show progress.
    _copies_a_batch = 2**20

    @property
    def _batch_size(self):
        return max(1, self._copies_a_batch // self._copies_a_row)

    def output_spec(self, row):
        return {
            "label": keras.KerasTensor(row, "int32"),
            "radius": keras.KerasTensor(row, "float32"),
            "certified": keras.KerasTensor(row, "bool"),
            "guess": keras.KerasTensor(row, "int32"),
            "num_samples": keras.KerasTensor(row, "int32"),
            "votes": keras.KerasTensor((*row, self.num_classes), "int32"),
            "lower_bound": keras.KerasTensor(row, "float32"),
            "upper_bound": keras.KerasTensor(row, "float32"),
        }

    def evaluate(
        self,
        x,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        seed=None,
    ):
        """The field's metrics on labelled inputs.

        Args:
            x: as in `predict`; a dataset must give `(x, y)` or `(x, y, weight)`.
            y: class indices `(rows,)`, or one-hot `(rows, classes)`.
            batch_size, verbose, steps, callbacks, seed: as in `predict`.
            sample_weight: nonnegative weights `(rows,)` of the rows.
            return_dict: whether to return a dict; else a list in the order below.

        Returns:
            A dict of floats (`return_dict`), or a list of them:

            - `standard_accuracy`: the base model is right on the clean input;
            - `certified_accuracy`: the label is right, with any radius;
            - `average_certified_radius`: the mean over all rows of the radius where
              the label is right, 0 elsewhere;
            - `abstention_rate`;
            - `mean_num_samples`: copies a row.

        Raises:
            ValueError: as in `predict`, and if `y` is missing or holds anything but
                classes.
        """
        return super().evaluate(
            x,
            y,
            batch_size,
            verbose,
            sample_weight,
            steps,
            callbacks,
            return_dict,
            seed,
        )

    def _summary(self, results, y, right):
        certified = results["label"] == y
        return {
            "standard_accuracy": right,
            "certified_accuracy": certified,
            "average_certified_radius": results["radius"] * certified,
            "abstention_rate": results["label"] < 0,
            "mean_num_samples": results["num_samples"],
        }


def dimension(shape):
    """How many coordinates the noise has on rows of `shape`."""
    if None in shape:
        raise ValueError(
            "`model` must take rows of a fixed shape: the noise has a dimension. "
            f"Received: rows of shape {shape}"
        )
    return math.prod(shape)
