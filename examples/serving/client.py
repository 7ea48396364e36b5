"""Asks a running tensorflow_model_server for certificates, over gRPC.

    pip install tensorflow-serving-api
    python examples/serving/client.py inputs.npy --model mnist
    python examples/serving/client.py audit.npz --model mnist --signature seeded

An .npy file holds the inputs, float32 `(rows, …)`. An .npz file holds `inputs`
and, for the signature `seeded`, `seed`: int32 `(rows, 2)`.
"""

import argparse
import sys

import numpy as np

# The client needs neither Keras nor keras_probcert, so it spells these out.
DECISIONS = ("undecided", "robust", "not robust", "refused", "futile")


def read(path):
    """The tensors of a request, from a file: a dict of arrays."""
    data = np.load(path)
    arrays = {"inputs": data} if isinstance(data, np.ndarray) else dict(data)
    # A server does not cast: float64 would be answered INVALID_ARGUMENT.
    dtypes = {"inputs": np.float32, "seed": np.int32}
    return {
        name: np.asarray(arrays[name], dtype)
        for name, dtype in dtypes.items()
        if name in arrays
    }


def make_request(arrays, model, signature):
    """A PredictRequest, with the inputs that `signature` has."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name in ("inputs", "seed") if signature == "seeded" else ("inputs",):
        if name not in arrays:
            raise SystemExit(f"The signature {signature!r} needs {name!r} in the file.")
        request.inputs[name].CopyFrom(tf.make_tensor_proto(arrays[name]))
    return request


def ask(address, request, timeout):
    """The server's answer: a dict of arrays."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    # By default gRPC drops an answer of more than 4 MiB.
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            response = stub.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
    return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help=".npy or .npz file")
    parser.add_argument("--address", default="localhost:8500", help="host:port of gRPC")
    parser.add_argument("--model", default="model", help="the server's --model_name")
    parser.add_argument(
        "--signature",
        default="serving_default",
        choices=("serving_default", "seeded", "base"),
    )
    parser.add_argument("--timeout", type=float, default=60, help="seconds")
    args = parser.parse_args()

    request = make_request(read(args.file), args.model, args.signature)
    answer = ask(args.address, request, args.timeout)
    if args.signature == "base":
        for i, outputs in enumerate(answer["outputs"]):
            print(f"row {i}: outputs {outputs.tolist()}")
        return
    for i in range(len(answer["label"])):
        print(
            f"row {i}: label {answer['label'][i]}, "
            f"{DECISIONS[answer['decision'][i]]} "
            f"after {answer['num_samples'][i]} samples, "
            f"votes {answer['votes'][i].tolist()}, agreement in "
            f"[{answer['lower_bound'][i]:.4f}, {answer['upper_bound'][i]:.4f}]"
        )


if __name__ == "__main__":
    main()
