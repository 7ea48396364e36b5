"""Certificates of a whole data set, by one process or by many workers."""

import functools
import itertools
import pathlib
import time
import warnings

import keras
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from keras_probcert import models
from keras_probcert.certifiers import CertifiedPredictor, Decision
from keras_probcert.distributed.fingerprint import fingerprint
from keras_probcert.distributed.local_pool import LocalPool
from keras_probcert.distributed.ray_pool import RayPool
from keras_probcert.distributed.rows import Rows
from keras_probcert.distributed.schedule import Schedule
from keras_probcert.distributed.sources import Source
from keras_probcert.distributed.store import Store, load_certificates
from keras_probcert.distributed.worker import Worker, load_bytes, to_bytes
from keras_probcert.seeds import row_seeds
from keras_probcert.validation import (
    check_floating,
    check_integer,
    check_labels,
    check_number,
    shape_fits,
)
from keras_probcert.version import __version__

# Workers that may end with the same row in their hands.
LOSSES = 3


def certify_dataset(
    model,
    data,
    output,
    seed=None,
    workers=None,
    ray_address=None,
    resources=None,
    batch_size=256,
    rows_a_file=10_000,
    divide_by=None,
    setup=None,
    verbose="auto",
):
    """Certifies all rows of a data set, on this machine or on a Ray cluster.

    Each row gets the certificate that `CertifiedPredictor.predict` gives it with the
    same seed, whatever the number of workers, their order, and how often the run was
    stopped: its noise depends on the recorded seed and its place in the data alone.
    Written is each row exactly once. The same call after a crash does only what was
    not written yet, and a call with more rows after the same ones only those; another
    model, perturbation, test, seed or data is refused.

    A row that is NaN, infinite, of values outside the perturbation's `clip`, gets the
    decision `REFUSED` and no vote; the others go on. A worker that dies, or whose node
    leaves, costs the votes that it had not handed back yet: its rows go to the next.

    Args:
        model: a `CertifiedPredictor`; the path of a `.keras` file that holds one
            (loaded in safe mode); or a function without arguments that gives one, for
            models with classes of your own (each worker calls it).
        data: inputs `(rows, …)`, or a tuple `(x, y)` of arrays; a `tf.data.Dataset` or
            an iterable of batches; a `ray.data.Dataset` with columns `x` and, if you
            like, `y` (it is materialized first, in its order); the path of a `.npz`
            or `.parquet` file or of a folder of them; or a TFDS name with its split,
            as in `"mnist:test[:100]"`. In the same order at every call.
        output: a folder, for `run.json` and `certificates/*.parquet`; on storage that
            this process can write to (workers do not write).
        seed: a nonnegative int; row i draws from `row_seeds(seed, 1, first_row=i)`.
            `None` (default) takes the seed of the run that is in `output`, or draws
            and records one.
        workers: the number of workers on Ray; `None` (default) for this process alone,
            or, with `ray_address`, as many as the cluster has places for.
        ray_address: of the cluster, as `ray.init` takes it (`"auto"`,
            `"ray://host:10001"`); by default Ray runs on this machine. Where this
            process is connected to a cluster, that one is taken.
        resources: what each worker takes of the cluster, `{"num_cpus": 1}` by default.
        batch_size: the most rows of a task; 256 by default. A lost worker loses up to
            a task.
        rows_a_file: the most rows of a Parquet file; a file is also written every
            half minute.
        divide_by: divides the inputs; by default 255 where a file or TFDS holds
            integers.
        setup: a function without arguments that this process and each worker call
            first, to import what registers your classes, say.
        verbose: "auto" or 1 shows progress with the time left; 0 does not.

    Returns:
        A dict: `rows` (all that are in `output` now), `new_rows`, `certified` and
        `refused` (counts over all), `votes` (taken by this call), `start_seconds` (of
        workers, with compilation), `seconds` (from then on), `lost_workers`,
        `lost_seconds` (of workers: votes that were lost, and new starts), `seed`; with
        labels, `certified_robust_accuracy`.

    Raises:
        ValueError: if an argument is not as expected, or `output` holds another run.
        OSError: if `output` cannot be written to.
        RuntimeError: if another process writes to `output`, no worker starts, or three
            workers died with the same row.
        ImportError: if Ray is needed and not installed.

    Example:

    >>> import keras, numpy as np, tempfile
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(50, 4).astype("float32")
    >>> with tempfile.TemporaryDirectory() as output:
    ...     first = certify_dataset(certified, x, output, seed=7, verbose=0)
    ...     again = certify_dataset(certified, x, output, verbose=0)
    >>> first["new_rows"], again["new_rows"], again["rows"]
    (50, 0, 50)

    Reference:

    - Polychronopoulos and Kuck, "Guided Self-Scheduling" (IEEE Transactions on
      Computers, 1987), for the size of the last tasks.
    """
    check_integer("batch_size", batch_size)
    check_integer("rows_a_file", rows_a_file)
    if workers is not None:
        check_integer("workers", workers)
    if resources is not None and workers is None and ray_address is None:
        raise ValueError(
            "`resources` are those of workers: give `workers` or `ray_address`. "
            f"Received: resources={resources}"
        )
    for name in ("num_cpus", "num_gpus"):
        if resources is not None and name in resources:
            check_number(f"resources[{name!r}]", resources[name])
    if seed is not None:
        seed = check_integer("seed", seed, least=0)
    if setup is not None:
        if not callable(setup):
            raise ValueError(
                f"`setup` must be a function without arguments. Received: {setup!r}"
            )
        setup()
    load, certified = _loader(model)
    shape = models.row_shape(certified.base_model)
    if shape is None:
        raise ValueError(
            "`model` must be built: call its base model on a batch. "
            "Received: a model without a known input shape"
        )
    if not certified.built:
        # The base model was built after it was wrapped.
        certified.build((None, *shape))
    source = data
    if not isinstance(data, Source):
        source = Source(data, shape if None not in shape else None, divide_by)
    with Store(output, fingerprint(certified, seed), rows_a_file) as store:
        if workers is None and ray_address is None:
            pool = LocalPool(Worker(lambda: certified, batch_size))
        else:
            run = store.run | {"library_version": __version__}
            make = functools.partial(Worker, load, batch_size, setup, run)
            pool = RayPool(make, workers, ray_address, resources)
        if source.total is not None:
            _check_all_there(store, source.total)
        seen = 0

        def left(rows):
            nonlocal seen
            seen = int(rows.id[-1]) + 1
            return store.left(rows)

        fresh = map(left, _rows(source, certified, store.run["seed"]))
        found = _run(
            pool, fresh, certified.test, batch_size, store, source.total, verbose
        )
        _check_all_there(store, seen)
    totals = _totals(output)
    if totals["refused"] == totals["rows"]:
        warnings.warn(
            "All rows were refused: they are not finite, or not in the valid input "
            f"range, clip={certified.perturbation.clip}. Scale them.",
            stacklevel=2,
        )
    return totals | found | {"seed": store.run["seed"]}


def _check_all_there(store, total):
    if max(store.done, default=-1) >= total:
        raise ValueError(
            "`data` must hold all rows that are in `output`; more may follow. "
            f"Received: {total} rows, and certificates of {max(store.done) + 1}"
        )


def _totals(output):
    """Counts over all certificates that are written."""
    found = load_certificates(output, ["id", "label", "decision", "certified", "y"])
    totals = {
        "rows": len(found["id"]),
        "certified": int(found["certified"].sum()),
        "refused": int((found["decision"] == Decision.REFUSED).sum()),
    }
    if "y" in found:
        labelled = found["y"] >= 0
        right = found["certified"] & (found["label"] == found["y"])
        totals["certified_robust_accuracy"] = float(right[labelled].mean())
    return totals


def _run(pool, fresh, test, batch_size, store, total, verbose):
    """Hands tasks to workers until all rows have their certificates."""
    progress = Progress(
        TextColumn("rows done"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=verbose == 0,
    )
    found = {"new_rows": 0, "votes": 0, "start_seconds": 0.0, "seconds": 0.0}
    # What was written is not worth a worker's start.
    first = next((rows for rows in fresh if len(rows)), None)
    if first is None and not store.done:
        raise ValueError(
            "`data` must hold at least one row. Received: data without any"
        )
    if first is not None:
        with pool:
            found["start_seconds"] = pool.start(first.x[:1])
            start = time.perf_counter()
            schedule = Schedule(
                itertools.chain([first], fresh), test, batch_size, pool.size
            )
            with progress:
                bar = progress.add_task("", total=total, completed=len(store.done))
                for rows, votes in _finished(pool, schedule, store):
                    found["new_rows"] += rows
                    found["votes"] += votes
                    progress.advance(bar, rows)
            found["seconds"] = time.perf_counter() - start
    return found | {
        "lost_workers": pool.lost_workers,
        "lost_seconds": pool.lost_seconds,
    }


def _finished(pool, schedule, store):
    """The number of rows that a task finished, and its votes, task by task."""
    while True:
        while pool.idle() and (task := schedule.next()):
            pool.submit(*task)
        if not pool.busy() and not schedule.waiting():
            return
        ended = pool.wait()
        if ended is None:
            continue
        rows, results = ended
        if results is None:
            rows.losses += 1
            if rows.losses.max() >= LOSSES:
                raise RuntimeError(
                    f"{LOSSES} workers died with the same rows in their hands, "
                    f"{rows.id.min()} to {rows.id.max()} among them"
                )
            schedule.back(rows)
            continue
        votes = int((results["num_samples"] - rows.num_samples).sum())
        rows.votes, rows.num_samples = results["votes"], results["num_samples"]
        rows.losses[:] = 0
        open_ = (results["decision"] == Decision.UNDECIDED) & (
            rows.num_samples < schedule.horizon
        )
        schedule.back(rows[open_])
        store.add(rows[~open_], {k: v[~open_] for k, v in results.items()})
        yield int((~open_).sum()), votes


def _rows(source, certified, seed):
    """The rows of a source, with no votes yet."""
    start, shape = 0, models.row_shape(certified.base_model)
    classes = certified.num_classes
    for x, y in source:
        check_floating("data", x)
        if not len(x):
            continue
        if not shape_fits(x.shape[1:], shape):
            raise ValueError(
                f"`data` must hold rows of shape {shape}. "
                f"Received: {x.shape[1:]} from row {start} on"
            )
        shape = x.shape[1:]  # Where it was left open, all are like the first.
        count = len(x)
        with np.errstate(over="ignore"):
            x = np.ascontiguousarray(x, np.float32)
        yield Rows(
            id=np.arange(start, start + count),
            x=x,
            y=np.full(count, -1) if y is None else check_labels(y, count, classes),
            seed=row_seeds(seed, count, start),
            votes=np.zeros((count, classes), np.int32),
            num_samples=np.zeros(count, np.int32),
            losses=np.zeros(count, np.int32),
        )
        start += count


def _loader(model):
    """A function that gives the predictor, which can be pickled; and the predictor."""
    if isinstance(model, (str, pathlib.Path)):
        load = functools.partial(load_bytes, pathlib.Path(model).read_bytes())
        certified = load()
    elif isinstance(model, keras.Model):
        certified = model
        load = _Saved(model)
    elif callable(model):
        load, certified = model, model()
    else:
        load, certified = None, model
    if not isinstance(certified, CertifiedPredictor):
        raise ValueError(
            "`model` must be a CertifiedPredictor (wrap a classifier in one), the path "
            "of one, or a function that gives one. "
            f"Received: {type(certified).__name__}"
        )
    return load, certified


class _Saved:
    """Loads a model that is saved when this is pickled: not in this process."""

    def __init__(self, model):
        self._model = model

    def __call__(self):
        return self._model

    def __reduce__(self):
        return functools.partial, (load_bytes, to_bytes(self._model))
