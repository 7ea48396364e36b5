"""The PyTorch twin of a Keras network: its graph, with the weights carried over.

Runs under PyTorch, without Keras. The network comes as what `Model.to_json()` and
`Layer.get_weights()` gave, images as Keras has them, `(rows, height, width, channels)`.
"""

import functools
import json

import numpy as np
import torch
import torch.nn.functional as F


def tensors(args):
    """The tensors in a layer's arguments, as Keras writes them to JSON."""
    if isinstance(args, list):
        return [tensor for item in args for tensor in tensors(item)]
    keras_tensor = isinstance(args, dict) and args["class_name"] == "__keras_tensor__"
    return [args["config"]] if keras_tensor else []


def convolution(config, shape, kernel, bias=None):
    pad = []
    for length, size, stride in zip(
        shape[1:3], config["kernel_size"], config["strides"], strict=True
    ):
        # "same": what does not split evenly goes to the end.
        missing = max((-(-length // stride) - 1) * stride + size - length, 0)
        pad.append((missing // 2, missing - missing // 2))
    settings = {"stride": config["strides"]}
    if config["padding"] == "valid":
        return lambda x: F.conv2d(x, kernel, bias, **settings)
    if all(before == after for before, after in pad):
        settings["padding"] = [before for before, _ in pad]
        return lambda x: F.conv2d(x, kernel, bias, **settings)
    (top, bottom), (left, right) = pad
    around = (left, right, top, bottom)
    return lambda x: F.conv2d(F.pad(x, around), kernel, bias, **settings)


def max_pooling(config, shape):
    assert config["padding"] == "valid"
    return lambda x: F.max_pool2d(x, config["pool_size"], config["strides"])


def batch_normalization(config, shape, gamma, beta, mean, variance):
    epsilon = config["epsilon"]
    return lambda x: F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


def dense(config, shape, kernel, bias):
    return lambda x: F.linear(x, kernel, bias)


LAYERS = {
    "Conv2D": convolution,
    "MaxPooling2D": max_pooling,
    "BatchNormalization": batch_normalization,
    "Dense": dense,
    "ReLU": lambda config, shape: F.relu,
    "Add": lambda config, shape: lambda *inputs: functools.reduce(torch.add, inputs),
    "Flatten": lambda config, shape: lambda x: x.flatten(1),
    "GlobalAveragePooling2D": lambda config, shape: lambda x: x.mean((2, 3)),
}


def in_torch_s_order(kind, weights, flattened):
    """A layer's weights with their axes as PyTorch wants them."""
    if kind == "Conv2D":
        weights[0] = weights[0].transpose(3, 2, 0, 1)
    if kind == "Dense":
        kernel = weights[0]
        if flattened:
            # Keras flattens height, width, channels; PyTorch channels first.
            kernel = kernel.reshape(*flattened, -1).transpose(2, 0, 1, 3)
            kernel = kernel.reshape(-1, kernel.shape[-1])
        weights[0] = kernel.T
    return [np.ascontiguousarray(w) for w in weights]


class Twin(torch.nn.Module):
    """The network in evaluation mode, from NCHW images to logits.

    Args:
        path: an .npz file with the JSON string `architecture`, and the i-th array of
            `get_weights()` of each layer as `LAYER/i`.
        dtype: a `torch.dtype`.
    """

    def __init__(self, path, dtype):
        super().__init__()
        with np.load(path) as file:
            arrays = dict(file)
        config = json.loads(str(arrays["architecture"]))["config"]
        self.steps, flattened = [], {}
        for layer in config["layers"]:
            kind, name, settings = layer["class_name"], layer["name"], layer["config"]
            if kind == "InputLayer":
                self.first = name
                continue
            inputs = tensors(layer["inbound_nodes"][0]["args"])
            shape = inputs[0]["shape"]
            names = [tensor["keras_history"][0] for tensor in inputs]
            if kind == "Flatten":
                flattened[name] = shape[1:]
            weights = []
            while f"{name}/{len(weights)}" in arrays:
                weights.append(arrays[f"{name}/{len(weights)}"])
            weights = in_torch_s_order(kind, weights, flattened.get(names[0]))
            weights = [torch.tensor(w, dtype=dtype) for w in weights]
            for index, weight in enumerate(weights):
                weight = torch.nn.Parameter(weight, requires_grad=False)
                weights[index] = weight
                self.register_parameter(f"{name}_{index}", weight)
            run = LAYERS[kind](settings, shape, *weights)
            activation = settings.get("activation", "linear")
            if activation == "relu":
                run = functools.partial(lambda run, x: F.relu(run(x)), run)
            else:
                assert activation == "linear", activation
            self.steps.append((name, names, run))

    def forward(self, x):
        values = {self.first: x}
        for name, names, run in self.steps:
            values[name] = run(*(values[n] for n in names))
        return values[name]


def images_first(x, dtype):
    """`(rows, height, width, channels)` in NumPy as NCHW in PyTorch."""
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), dtype=dtype)


def images_last(x):
    """NCHW in PyTorch as `(rows, height, width, channels)` in NumPy."""
    return x.detach().numpy().transpose(0, 2, 3, 1)
