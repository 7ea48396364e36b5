"""What a base model says of itself: its inputs, classes and last activation."""

import contextlib
import inspect
import math

import keras
from keras import ops


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
    # A network of the user's may have a `base_model` too, with a head on it.
    while getattr(model, "wraps_base_model", False):
        model = model.base_model
    return model


def row_shape(model):
    """The shape of one input of `model`, or `None` if it is not known yet."""
    model = innermost(model)
    if getattr(model, "inputs", None):
        return tuple(model.inputs[0].shape[1:])
    return _row_shape_when_built(model)


def _row_shape_when_built(layer):
    config = layer.get_build_config() if layer.built else None
    shape = (config or {}).get("input_shape")
    if not shape or not all(size is None or isinstance(size, int) for size in shape):
        return None
    return tuple(shape[1:])


def largest_activation(model):
    """How many values the largest activation has, for one row, as far as is known.

    An estimate, for speed: layers of a subclassed model tell their inputs at most, and
    sizes that are not fixed count as 1.
    """
    shapes = [row_shape(model)]
    for layer in innermost(model)._flatten_layers():
        shapes.append(_row_shape_when_built(layer))
        for node in layer._inbound_nodes:
            shapes += [output.shape[1:] for output in node.output_tensors]
    return max(math.prod(size or 1 for size in shape or ()) for shape in shapes)


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
            f"Received: outputs of structure {type(spec).__name__} (of a certifier, "
            "take the `base_model`)"
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


def classes(model, shape):
    """The number of classes of `model` for inputs of `shape`: one unit tells two."""
    return max(2, output_units(model, shape))


def last_layer(model):
    """The layer or operation that makes the output, `None` if unknown."""
    model = innermost(model)
    if not getattr(model, "outputs", None):
        return None
    # `layer.output` would be that of its first call, perhaps in another model.
    layer = model.outputs[0]._keras_history.operation
    return last_layer(layer) if isinstance(layer, keras.Model) else layer


def last_activation(model):
    """The activation of the layer that makes the output, `None` if unknown."""
    layer = last_layer(model)
    if _is_activation(layer):
        return {
            "Softmax": keras.activations.softmax,
            "Sigmoid": keras.activations.sigmoid,
        }.get(type(layer).__name__)
    return getattr(layer, "activation", None)


def _is_activation(layer):
    """Whether it is all activation: `layers.Softmax`, or `ops.softmax` in a graph."""
    return isinstance(layer, keras.layers.Softmax) or (
        isinstance(layer, keras.Operation) and not isinstance(layer, keras.Layer)
    )


def gives_probabilities(activation):
    """Whether it is a softmax or a sigmoid."""
    return activation in (keras.activations.softmax, keras.activations.sigmoid)


def logits(model, from_logits=None):
    """A function from inputs to the logits of `model`, of all its classes.

    Where the last layer ends in a softmax or a sigmoid, what goes into it is
    returned: probabilities lose the logits where they round to 0 and 1. The single
    unit of a two-class model becomes the second of two logits, beside a zero.

    Args:
        model: a Keras classifier: logits or softmax `(rows, classes)`, or one
            unit.
        from_logits: whether the model's outputs are logits; by default the last
            layer says so, and a model that does not show it (subclassed) is taken
            to give logits, unless it has a single unit. `False` takes logarithms
            where no activation can be left out.

    Returns:
        A function from `(rows, …)` to `(rows, classes)`, at least two classes. It
        raises a ValueError for a single unit of which nothing says what it is.
    """
    activation = last_activation(model)
    known = gives_probabilities(activation)
    shown = known or activation is keras.activations.linear
    unsure = from_logits is None and not shown
    if from_logits is None:
        from_logits = not known

    def forward(x):
        if from_logits:
            outputs = model(x, training=False)
        elif known:
            with _linear(last_layer(model)):
                outputs = model(x, training=False)
        else:
            outputs = model(x, training=False)
            tiny = keras.config.epsilon()
            if outputs.shape[1] == 1:
                outputs = ops.clip(outputs, tiny, 1 - tiny)
                outputs = ops.log(outputs) - ops.log1p(-outputs)
            else:
                outputs = ops.log(ops.maximum(outputs, tiny))
        if unsure and outputs.shape[1] == 1:
            # A probability taken for a logit would be class 1 everywhere.
            raise ValueError(
                "`from_logits` must be given for a model with a single output unit "
                "that shows neither a sigmoid nor logits. Received: from_logits=None"
            )
        # Half precision has too few digits for losses and for ranking classes.
        if keras.backend.standardize_dtype(outputs.dtype) != "float64":
            outputs = ops.cast(outputs, "float32")
        if outputs.shape[1] == 1:
            outputs = ops.concatenate([ops.zeros_like(outputs), outputs], axis=1)
        return outputs

    return forward


@contextlib.contextmanager
def _linear(layer):
    """Leaves out the activation of `layer` while the block runs."""
    if _is_activation(layer):
        layer.call = lambda inputs, mask=None: inputs
        try:
            yield
        finally:
            del layer.call
        return
    activation, layer.activation = layer.activation, keras.activations.linear
    try:
        yield
    finally:
        layer.activation = activation


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


def is_binary(loss):
    """Whether a `keras.losses.Loss` is a cross-entropy of each unit by itself."""
    # Its name may be any, `"bce"` for one.
    return getattr(loss, "fn", None) in (
        keras.losses.binary_crossentropy,
        keras.losses.binary_focal_crossentropy,
    )
