"""Calling a model with its variables given, and what they become returned."""

import keras
from keras import ops


def stateless_call(model, weights, state, x, training):
    """Outputs of `model`, and its non-trainable state afterwards.

    Unlike Keras' method of this name it calls the model, and not its `call`: so
    layers see the training mode in subclassed models that do not hand it on, too.
    What layers add to the losses is dropped.

    Args:
        model: a built Keras model.
        weights: values for `model.trainable_variables`.
        state: values for `model.non_trainable_variables`.
        x: inputs.
        training: bool.
    """
    variables = model.trainable_variables, model.non_trainable_variables
    mapping = [
        *zip(variables[0], weights, strict=True),
        *zip(variables[1], state, strict=True),
    ]
    with keras.StatelessScope(state_mapping=mapping) as scope:
        outputs = model(x, training=training)
    return outputs, [scope.get_current_value(v) for v in variables[1]]


def frozen(model, training=False):
    """`model` as a function that learns nothing from being called.

    No gradient reaches its weights, and BatchNorm statistics, Dropout seeds and
    losses stay as they are, whatever mode `training` puts the layers in.
    """
    variables = model.trainable_variables, model.non_trainable_variables
    values = [
        [ops.stop_gradient(ops.convert_to_tensor(v)) for v in some]
        for some in variables
    ]

    def forward(x):
        return stateless_call(model, *values, x, training)[0]

    return forward
