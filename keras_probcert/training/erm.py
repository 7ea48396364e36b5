"""Empirical risk minimization: training on the inputs as they are."""

import keras

from keras_probcert.training.training_method import TrainingMethod


@keras.saving.register_keras_serializable(package="keras_probcert")
class ERMModel(TrainingMethod):
    r"""Trains on clean inputs: Keras' own training, beside the other methods.

    Minimizes the mean of the compiled loss \(\ell(h(x), y)\). BatchNorm and
    Dropout behave as in Keras.

    Args:
        model: the base model, a `keras.Model` with one output.
        **kwargs: passed to `keras.Model`, such as `name`.

    Raises:
        ValueError: if the base model has not exactly one input and one output.

    Example:

    >>> import keras
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = ERMModel(base)
    >>> model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))

    Reference:

    - Vapnik, "Statistical Learning Theory" (1998).
    """

    def __init__(self, model, **kwargs):
        # What is not perturbed has no range to leave.
        super().__init__(model, clip=None, **kwargs)

    def forward(self, x, y):
        return self.outputs_of(x[:, None])

    def objective(self, y, outputs):
        return self.losses_of(y, outputs["copies"])[:, 0], {}
