"""Serves an exported certifier over HTTP with Ray Serve: many clients, one call.

    pip install '.[ray]'
    keras-probcert export certified.keras served/demo/1 --invalid refuse
    python examples/serving/ray_serve.py served/demo/1 --max-passes 32
    curl http://127.0.0.1:8000 -d '{"inputs": [[0.1, 0.2, 0.3, 0.4]]}'

Asks by column, like TensorFlow Serving's REST: `inputs`, one or more rows, and if
wanted `seed`, a pair of int32 a row, `max_samples` and `max_passes`, a number or one
a row. The answer holds a list a key: the certificate, and the row's `seed` and budget,
which repeat it. Fresh seeds come from the operating system.

Requests that wait share one call of the signature `seeded_budgeted`. A row's votes are
its own, whoever shares its batch; its budget is at most the server's, and so a hard row
holds the others up for at most `--max-passes` forward passes. A request that cannot be
read is answered 400 by itself, a row out of range is refused by itself: export with
`invalid="refuse"`.

Who may choose an input and its seed can try seeds until one certifies: with
`--no-seeds` the server draws them all.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray's processes listen on the loopback only, as on Windows and macOS.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402

INT32 = np.iinfo(np.int32)
BUDGETS = ("max_samples", "max_passes")
NAMES = ("inputs", "seed", *BUDGETS)


def read(body, shape, most, seeds=True):
    """The tensors of a request, each with its rows; a `ValueError` says what is wrong.

    Args:
        body: what came as JSON.
        shape: of one input.
        most: the server's `max_samples` and `max_passes`, a dict.
        seeds: whether the request may bring its own.
    """
    if not isinstance(body, dict) or "inputs" not in body or set(body) - set(NAMES):
        raise ValueError(f"a request is an object with `inputs`, of {', '.join(NAMES)}")
    inputs = numbers("inputs", body["inputs"], "iuf")
    if inputs.shape != (len(inputs), *shape) or not len(inputs):
        expected = ", ".join(map(str, ("rows", *shape)))
        raise ValueError(f"`inputs` must be ({expected}), is {inputs.shape}")
    rows = len(inputs)
    with np.errstate(over="ignore"):  # Infinite is refused, not an error.
        tensors = {"inputs": inputs.astype(np.float32)}
    if "seed" not in body:
        fresh = os.urandom(8 * rows)
        tensors["seed"] = np.frombuffer(fresh, np.int32).reshape(rows, 2)
    elif not seeds:
        raise ValueError("`seed` is this server's to draw")
    else:
        tensors["seed"] = int32("seed", body["seed"], (rows, 2), INT32.min)
    for name in BUDGETS:
        asked = int32(name, body.get(name, most[name]), (rows,), 0)
        tensors[name] = np.minimum(asked, np.int32(most[name]))
    return tensors


def numbers(name, value, kinds):
    """An array of numbers of these kinds, at least of one dimension."""
    try:
        array = np.atleast_1d(value)
    except ValueError:
        array = None  # Rows of different lengths.
    if array is None or array.dtype.kind not in kinds:
        raise ValueError(f"`{name}` must hold numbers, as many in each row")
    return array


def int32(name, value, shape, least):
    """An int32 array of that shape; one number will do for all rows."""
    if isinstance(value, int) and len(shape) == 1:
        value = [value] * shape[0]
    array = numbers(name, value, "iu")
    if array.shape != shape:
        raise ValueError(f"`{name}` must be {shape}, is {array.shape}")
    if array.min() < least or array.max() > INT32.max:
        raise ValueError(f"`{name}` must be in [{least}, {INT32.max}]")
    return array.astype(np.int32)


def count_rows(requests):
    return sum(len(request["inputs"]) for request in requests)


@serve.deployment
class Certifier:
    """One loaded model, one batch at a time.

    `@serve.batch` closes a batch by the clock, also while another one runs; such small
    batches would queue. So requests wait at a door. It is open until the batch is full
    or its time is over, and again once it is answered: all that came meanwhile share
    the next. So a request waits for the running batch, the time in which its own fills,
    and its own, as long as no more rows wait than a batch may have.
    """

    def __init__(self, model, max_batch_size, batch_wait_timeout_s, most, seeds):
        import tensorflow as tf

        self.tf = tf
        self.model = tf.saved_model.load(model)  # Else its variables are freed.
        self.signature = self.model.signatures["seeded_budgeted"]
        specs = self.signature.structured_input_signature[1]
        self.shape = tuple(specs["inputs"].shape[1:])
        self.max_batch_size, self.most, self.seeds = max_batch_size, most, seeds
        self.certify.set_max_batch_size(max_batch_size)
        # A little longer than the door is open, so that nobody comes after it closes.
        self.certify.set_batch_wait_timeout_s(1.2 * batch_wait_timeout_s + 0.001)
        self.wait = batch_wait_timeout_s
        self.door, self.is_open, self.rows_inside = asyncio.Condition(), True, 0
        # The first call is slower than others.
        body = {"inputs": np.zeros((1, *self.shape)), "max_passes": 1}
        self.run([read(body, self.shape, most)])

    async def __call__(self, request: Request):
        try:
            tensors = read(await request.json(), self.shape, self.most, self.seeds)
            if len(tensors["inputs"]) > self.max_batch_size:
                raise ValueError(f"at most {self.max_batch_size} rows a request")
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        async with self.one_of_a_batch(len(tensors["inputs"])):
            return await self.certify(tensors)

    @contextlib.asynccontextmanager
    async def one_of_a_batch(self, rows):
        async with self.door:
            await self.door.wait_for(
                lambda: self.is_open and self.rows_inside + rows <= self.max_batch_size
            )
            if not self.rows_inside:
                loop = asyncio.get_running_loop()
                self.closing = loop.call_later(self.wait, self.close_door)
            self.rows_inside += rows
        try:
            yield
        finally:
            self.rows_inside -= rows
            if not self.rows_inside:
                self.closing.cancel()
                self.is_open = True
                async with self.door:
                    self.door.notify_all()

    def close_door(self):
        self.is_open = False

    @serve.batch(batch_size_fn=count_rows)
    async def certify(self, requests):
        self.close_door()  # It may be full before its time.
        return await asyncio.to_thread(self.run, requests)

    def run(self, requests):
        """The answers to requests in one call, as JSON's objects."""
        merged = {
            name: np.concatenate([request[name] for request in requests])
            for name in requests[0]
        }
        feeds = {name: self.tf.constant(value) for name, value in merged.items()}
        begin = time.perf_counter()
        found = {name: v.numpy() for name, v in self.signature(**feeds).items()}
        seconds = time.perf_counter() - begin
        found |= {name: merged[name] for name in ("seed", *BUDGETS)}
        ends = np.cumsum([len(request["inputs"]) for request in requests])
        parts = {name: np.split(value, ends[:-1]) for name, value in found.items()}
        return [
            {name: part[i].tolist() for name, part in parts.items()}
            | {"batch_seconds": seconds}
            for i in range(len(requests))
        ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the SavedModel's folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--replicas", type=int, default=1, help="processes")
    parser.add_argument("--max-batch-size", type=int, default=32, help="rows a call")
    parser.add_argument(
        "--batch-wait-timeout-s",
        type=float,
        default=0.005,
        help="how long a batch that is not full waits for more",
    )
    parser.add_argument(
        "--max-samples", type=int, default=INT32.max, help="the most votes of a row"
    )
    parser.add_argument(
        "--max-passes", type=int, default=INT32.max, help="the most passes of a batch"
    )
    parser.add_argument("--no-seeds", action="store_true", help="refuse clients' seeds")
    parser.add_argument("--seconds", type=float, help="stop by itself after that")
    args = parser.parse_args()

    import ray

    ray.init(
        address="local",  # Never a cluster that runs already.
        num_cpus=args.replicas,
        include_dashboard=False,
        object_store_memory=100 * 2**20,  # Requests do not pass through it.
    )
    # However it ends, the processes that it started end. Ray had a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        serve.start(http_options={"host": args.host, "port": args.port})
        deployment = Certifier.options(
            num_replicas=args.replicas,
            max_ongoing_requests=4 * args.max_batch_size,
            logging_config={"enable_access_log": False},
        )
        serve.run(
            deployment.bind(
                os.path.abspath(args.model),
                args.max_batch_size,
                args.batch_wait_timeout_s,
                {name: getattr(args, name) for name in BUDGETS},
                not args.no_seeds,
            )
        )
        print(f"ready on http://{args.host}:{args.port}", flush=True)
        time.sleep(args.seconds if args.seconds is not None else 10**8)
    except KeyboardInterrupt:
        pass
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
