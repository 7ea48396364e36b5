"""What a base model says of itself: its inputs, classes and last activation."""

import inspect

import keras


def check_classifier(model):
    """Checks that `model` is a Keras model with one input and one output.

    Raises:
        ValueError: if it is not. What cannot be known before the model is built
            is not checked.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a keras.Model. Received: model={model!r}")
    for name in ("inputs", "outputs"):
        tensors = getattr(model, name, None)
        if tensors is not None and len(tensors) != 1:
            raise ValueError(
                f"`model` must have exactly one of `{name}`. "
                f"Received: {len(tensors)} of them"
            )


def innermost(model):
    """The model itself, without training wrappers around it."""
    while hasattr(model, "base_model"):
        model = model.base_model
    return model


def row_shape(model):
    """The shape of one input of `model`, or `None` if it is not known yet."""
    model = innermost(model)
    if getattr(model, "inputs", None):
        return tuple(model.inputs[0].shape[1:])
    config = model.get_build_config() if model.built else None
    shape = (config or {}).get("input_shape")
    if not shape or not all(size is None or isinstance(size, int) for size in shape):
        return None
    return tuple(shape[1:])


def build(model, shape):
    """Builds `model` for batches of `shape`, unless it is built.

    By a symbolic call, which also builds subclassed models that have no `build`
    of their own.
    """
    if not model.built:
        model(keras.KerasTensor((None, *shape[1:]), "float32"))


def output_units(model, shape):
    """The number of output units of `model` for inputs of `shape`.

    Raises:
        ValueError: if the model gives anything but `(rows, units)` with a fixed
            number of units, or a softmax over one.
    """
    spec = model.compute_output_spec(keras.KerasTensor((None, *shape), "float32"))
    if not isinstance(spec, keras.KerasTensor):
        raise ValueError(
            "`model` must have exactly one output. "
            f"Received: outputs of structure {type(spec).__name__}"
        )
    if len(spec.shape) != 2 or spec.shape[1] is None:
        raise ValueError(
            "`model` must have a fixed number of classes, output shape "
            f"(rows, classes). Received: output shape {tuple(spec.shape)}"
        )
    units = spec.shape[1]
    if units == 1 and last_activation(model) is keras.activations.softmax:
        raise ValueError(
            "`model` must have at least two classes. Received: a softmax over a "
            "single class"
        )
    return units


def last_activation(model):
    """The activation of the layer that makes the output, `None` if unknown."""
    model = innermost(model)
    if not getattr(model, "outputs", None):
        return None
    for layer in reversed(model.layers):
        if getattr(layer, "output", None) is model.outputs[0]:
            if isinstance(layer, keras.Model):
                return last_activation(layer)
            if isinstance(layer, keras.layers.Softmax):
                return keras.activations.softmax
            return getattr(layer, "activation", None)
    return None


def takes_logits(loss):
    """Whether a cross-entropy takes logits, `None` if `loss` is not one.

    Args:
        loss: a `keras.losses.Loss`.
    """
    if hasattr(loss, "from_logits"):
        return loss.from_logits
    # What Keras makes of a function or of its name.
    function = getattr(loss, "fn", None)
    argument = function and inspect.signature(function).parameters.get("from_logits")
    return argument and loss._fn_kwargs.get("from_logits", argument.default)
