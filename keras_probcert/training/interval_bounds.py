"""Interval bound propagation through the layers of a Keras model."""

import functools

import keras
from keras import layers, ops, tree

from keras_probcert.models import innermost

_MONOTONE_ACTIVATIONS = (
    "linear relu relu6 leaky_relu elu selu sigmoid tanh softplus hard_tanh "
    "hard_sigmoid exponential softsign"
).split()

# What maps a lower bound to a lower bound, and an upper one to an upper one.
_MONOTONE_LAYERS = (
    layers.InputLayer,
    layers.Identity,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.UpSampling1D,
)
_MONOTONE_MERGES = (
    layers.Add,
    layers.Average,
    layers.Concatenate,
    layers.Maximum,
    layers.Minimum,
)
_MERGES = (*_MONOTONE_MERGES, layers.Subtract)

# What multiplies by a number, of either sign, and adds one, each entry alone.
_AFFINE_LAYERS = (layers.Rescaling, layers.Normalization)
_CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
_DROPOUTS = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)


class Interval:
    """A tensor at an input, and its bounds over the input's box.

    By its two ends, or by its centre and half its width, which is what linear maps
    take and give; the other pair is worked out where it is asked for. Iterates over
    value, lower and upper bound.
    """

    def __init__(self, value, lower=None, upper=None, centre=None, radius=None):
        self.value = value
        if centre is None:
            self.lower, self.upper = lower, upper
        else:
            self.centre, self.radius = centre, radius

    def __iter__(self):
        return iter((self.value, self.lower, self.upper))

    @functools.cached_property
    def lower(self):
        """The least value."""
        return self.centre - self.radius

    @functools.cached_property
    def upper(self):
        """The greatest value."""
        return self.centre + self.radius

    @functools.cached_property
    def centre(self):
        """The middle of the bounds."""
        return (self.lower + self.upper) / 2

    @functools.cached_property
    def radius(self):
        """Half the distance of the bounds."""
        return (self.upper - self.lower) / 2


def bounded_layers(model, outermost=True):
    """The graph of `model` as a list of `(layer, inputs, outputs)`, in order.

    Args:
        model: a functional or `Sequential` Keras model. Models inside it count as
            layers.
        outermost: whether the model gives the outputs, so that it may end in softmax.

    Raises:
        ValueError: if the model has no graph of layers, or one with a layer whose
            outputs cannot be bounded.
    """
    model = _graph_of(model)
    if not isinstance(model, keras.Model) or not getattr(model, "_nodes_by_depth", 0):
        raise ValueError(
            "`model` must be a built functional or Sequential model, so that bounds "
            f"can go from layer to layer. Received: {model!r}"
        )
    found = []
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                constants = len(tree.flatten(node.arguments.args))
                constants -= len(node.input_tensors)
                if constants and isinstance(node.operation, _MERGES):
                    raise ValueError(
                        "`model` has a layer that merges constants, which interval "
                        "bound propagation cannot. "
                        f"Received: layer {node.operation.name!r}"
                    )
                inputs = [id(tensor) for tensor in node.input_tensors]
                outputs = [id(tensor) for tensor in node.outputs]
                found.append((node.operation, inputs, outputs))
    last = len(found) - 1
    for i, (layer, *_) in enumerate(found):
        if isinstance(layer, keras.Model):
            bounded_layers(layer, outermost=False)
        elif not _is_bounded(layer) and not (
            outermost and i == last and _is_softmax_dense(layer)
        ):
            raise ValueError(
                "`model` has a layer whose outputs interval bound propagation cannot "
                f"bound. Received: layer {layer.name!r}, a {type(layer).__name__}"
                + _activation_of(layer)
            )
    return found


def _graph_of(model):
    model = innermost(model)
    return model._functional if isinstance(model, keras.Sequential) else model


def _activation_of(layer):
    activation = getattr(layer, "activation", None)
    return f" with activation {activation.__name__}" if activation else ""


def _is_softmax_dense(layer):
    return (
        isinstance(layer, layers.Dense)
        and layer.activation is keras.activations.softmax
    )


def _is_bounded(layer):
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", "linear")
    if activation is not None and activation is not getattr(
        keras.activations, name, None
    ):
        return False
    if name not in _MONOTONE_ACTIVATIONS:
        return False
    if getattr(layer, "padding", None) == "causal":
        return False
    if isinstance(layer, layers.ELU) and layer.alpha < 0:
        return False
    # These normalize by other statistics than the batch's own.
    if isinstance(layer, layers.BatchNormalization) and (
        layer.renorm or layer.synchronized
    ):
        return False
    # By exact type: a subclass may compute something else.
    return type(layer) in (
        *_MONOTONE_LAYERS,
        *_MERGES,
        *_AFFINE_LAYERS,
        *_CONVOLUTIONS,
        *_DROPOUTS,
        layers.Dense,
        layers.Activation,
        layers.BatchNormalization,
    )


def propagate(model, interval, training=False, relus=None, last=True):
    """Bounds of the outputs of `model` over a box of inputs.

    Args:
        model: a functional or `Sequential` Keras model.
        interval: an `Interval` of inputs, each `(rows, …)`.
        training: whether layers are in training mode. BatchNorm then normalizes
            values and bounds alike by the statistics of the values; Dropout drops
            the same entries of all three.
        relus: a list, to which the intervals before each ReLU are appended, or
            `None`.
        last: whether to go through the last layer.

    Returns:
        An `Interval` of outputs (of the last layer's inputs where `last` is
        False). The bounds hold for every input between `lower` and `upper`, to
        float32 rounding.
    """
    graph = bounded_layers(model, outermost=not last)
    model = _graph_of(model)
    known = {id(model.inputs[0]): interval}
    for layer, inputs, outputs in graph if last else graph[:-1]:
        received = [known[tensor] for tensor in inputs]
        if isinstance(layer, keras.Model):
            result = propagate(layer, received[0], training, relus)
        else:
            result = _through(layer, received, training, relus)
        known.update(dict.fromkeys(outputs, result))
    return known[id(model.outputs[0])] if last else known[graph[-1][1][0]]


def last_dense(model):
    """The last layer of `model` if it is a Dense one that gives logits (or their
    softmax), else `None`."""
    layer = bounded_layers(model)[-1][0]
    linear = keras.activations.linear, keras.activations.softmax
    if isinstance(layer, layers.Dense) and layer.activation in linear:
        return layer
    return None


def worst_logits(dense, bounds, target):
    """Logits, and upper bounds of their differences from the right class's.

    Args:
        dense: the last layer.
        bounds: the `Interval` of its inputs, each `(rows, features)`.
        target: one-hot, `(rows, classes)`.
    """
    dtype = bounds.centre.dtype
    kernel = ops.cast(dense.kernel, dtype)
    bias = ops.cast(dense.bias, dtype) if dense.use_bias else 0.0
    values = ops.matmul(ops.cast(bounds.value, dtype), kernel) + bias
    # (right class, class, features): rows share those of their class.
    filters = ops.transpose(kernel)
    differences = filters[None] - filters[:, None]
    of_class = ops.argmax(target, axis=-1)
    logits = ops.matmul(bounds.centre, kernel) + bias
    logits = logits - ops.sum(target * logits, axis=-1, keepdims=True)
    widths = ops.take(ops.abs(differences), of_class, axis=0)
    return values, logits + ops.einsum("ncf,nf->nc", widths, bounds.radius)


def _through(layer, intervals, training, relus):
    """The interval after a layer, from those before it."""
    interval = intervals[0]
    if isinstance(layer, (layers.Dense, *_CONVOLUTIONS)):
        return _activated(layer, affine(layer, interval), relus)
    if isinstance(layer, layers.BatchNormalization):
        return _normalized(layer, interval, training)
    if isinstance(layer, _DROPOUTS):
        mask = layer(ops.ones_like(interval.value), training=training)
        return Interval(*(tensor * ops.cast(mask, tensor.dtype) for tensor in interval))
    if isinstance(layer, layers.Subtract):
        a, b = intervals
        return Interval(a.value - b.value, a.lower - b.upper, a.upper - b.lower)
    if isinstance(layer, _AFFINE_LAYERS):
        value, *ends = _each(layer, interval)
        return Interval(value, ops.minimum(*ends), ops.maximum(*ends))
    if isinstance(layer, layers.ReLU) or _is_relu(layer):
        _note(relus, interval)
    # Monotone.
    if len(intervals) == 1:
        return _each(layer, interval)
    return Interval(*(layer(list(tensors)) for tensors in zip(*intervals, strict=True)))


def _each(layer, interval):
    # In mixed precision a layer rounds what it is given.
    return Interval(*(ops.cast(layer(tensor), tensor.dtype) for tensor in interval))


def affine(layer, interval):
    """The interval before the activation of a Dense or convolution layer.

    The centre goes through the weights, half the width through their absolute
    values.
    """
    apply = _linear_map(layer)
    # In mixed precision weights come rounded, as the layer itself sees them.
    dtype = interval.centre.dtype
    bias = 0.0
    if layer.use_bias:
        shape = [1] * len(interval.value.shape)
        channels = -1 if getattr(layer, "data_format", "") != "channels_first" else 1
        shape[channels] = layer.bias.shape[0]
        bias = ops.reshape(ops.cast(layer.bias, dtype), shape)
    kernel = ops.cast(layer.kernel, dtype)
    value = apply(ops.cast(interval.value, dtype), kernel) + bias
    centre = apply(interval.centre, kernel) + bias
    radius = apply(interval.radius, ops.abs(kernel))
    return Interval(value, centre=centre, radius=radius)


def _linear_map(layer):
    """A function of inputs and a kernel: what the layer does without its bias."""
    if isinstance(layer, layers.Dense):
        return ops.matmul
    if hasattr(layer, "convolution_op"):
        return layer.convolution_op
    return lambda x, kernel: ops.depthwise_conv(
        x,
        kernel,
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


def _activated(layer, interval, relus):
    if layer.activation is keras.activations.linear:
        return interval
    if _is_relu(layer):
        _note(relus, interval)
    return Interval(*(layer.activation(tensor) for tensor in interval))


def _is_relu(layer):
    return getattr(layer, "activation", None) is keras.activations.relu


def _note(relus, interval):
    if relus is not None:
        relus.append(interval)


def _normalized(layer, interval, training):
    """BatchNorm: the bounds by the same statistics as the values."""
    value = layer(interval.value, training=training)
    if training and layer.trainable:
        axis = layer.axis % len(interval.value.shape)
        axes = [i for i in range(len(interval.value.shape)) if i != axis]
        mean, variance = ops.moments(ops.cast(interval.value, "float32"), axes)
    else:
        mean, variance = layer.moving_mean, layer.moving_variance
    shape = [1] * len(interval.value.shape)
    shape[layer.axis] = -1
    scale = ops.rsqrt(ops.cast(variance, "float32") + layer.epsilon)
    if layer.scale:
        scale = scale * ops.cast(layer.gamma, "float32")
    shift = -ops.cast(mean, "float32") * scale
    if layer.center:
        shift = shift + ops.cast(layer.beta, "float32")
    scale, shift = (
        ops.reshape(ops.cast(tensor, interval.centre.dtype), shape)
        for tensor in (scale, shift)
    )
    centre = interval.centre * scale + shift
    return Interval(value, centre=centre, radius=interval.radius * ops.abs(scale))
