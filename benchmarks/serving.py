"""What merging requests does to their latency, and what a budget bounds, on digits.

A small ConvNet is trained on scikit-learn's digits and exported. *Easy* rows are those
that no copy of a first run disagreed on; the *hardest* row lies between two digits,
where a bisection found the most votes. First the exported loop by itself: the time of
a merged batch, of easy rows, and of 15 easy rows and the hardest one under several
budgets. Then `examples/serving/ray_serve.py` on the loopback, under the load of
`examples/serving/load.py`: easy rows alone, with the hardest row now and then, and the
same with a budget.

    pip install '.[ray]'
    python benchmarks/serving.py
"""

import argparse
import functools
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

from keras_probcert import CertifiedPredictor, LInf, VarianceMinimizingModel, row_seeds

SERVING = pathlib.Path(__file__).parent.parent / "examples" / "serving"
sys.path.insert(0, str(SERVING))

import load  # noqa: E402

NO_BUDGET = {"max_samples": load.LARGEST, "max_passes": load.LARGEST}


def export(folder, forward_batch_size):
    """Trains, exports, and returns the digits that were held out."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, y = (digits.images / 16).astype("float32")[..., None], digits.target
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model = VarianceMinimizingModel(base, LInf(0.2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=False)
    model.fit(x[:1500], y[:1500], epochs=5, verbose=0)
    certified = CertifiedPredictor(model, forward_batch_size=forward_batch_size)
    certified.export(folder, invalid="refuse")
    return x[1500:]


def ask(signature, x, seed=0, **budget):
    """The answer to `x`, and the seconds it took; a budget is for all rows or each."""
    budget = NO_BUDGET | budget
    rows = len(x)
    feeds = {"inputs": tf.constant(x), "seed": tf.constant(row_seeds(seed, rows))}
    for name, value in budget.items():
        feeds[name] = tf.constant(np.broadcast_to(value, rows), tf.int32)
    begin = time.perf_counter()
    answer = {name: value.numpy() for name, value in signature(**feeds).items()}
    return answer, time.perf_counter() - begin


def find_rows(signature, x):
    """The easy rows of `x`, and the hardest between two of them, `(1, …)`."""
    answer, _ = ask(signature, x)
    unanimous = answer["votes"].max(axis=1) == answer["num_samples"]
    easy = answer["certified"] & unanimous
    labels, easy = answer["label"][easy], x[easy]
    one, other = easy[0], easy[np.argmax(labels != labels[0])]
    low, high = 0.0, 1.0
    for _ in range(4):
        parts = np.linspace(low, high, 32)
        rows = np.stack([(1 - part) * one + part * other for part in parts])
        answer, _ = ask(signature, rows.astype("float32"), seed=1)
        top = int(answer["num_samples"].argmax())
        low, high = parts[max(top - 1, 0)], parts[min(top + 1, 31)]
    return easy, rows[top : top + 1].astype("float32")


def time_of_a_pass(signature, easy, repeats):
    """Seconds of a full pass, one number a repeat."""
    rows = np.resize(easy, (256, *easy.shape[1:]))
    times = []
    for repeat in range(repeats):
        _, few = ask(signature, rows, repeat, max_passes=2)
        _, many = ask(signature, rows, repeat, max_passes=10)
        times.append((many - few) / 8)
    return np.array(times)


def in_turn(cases, repeats):
    """What each case, a function of a seed, gave in `repeats` rounds of all of them."""
    found = {name: [] for name in cases}
    for seed in range(repeats):
        for name, case in cases.items():
            found[name].append(case(seed))
    return found


def merged(signature, easy, sizes, repeats):
    table = Table("rows a batch", "ms", "ms a row", title="a batch of easy rows")
    cases = {}
    for size in sizes:
        rows = np.resize(easy, (size, *easy.shape[1:]))
        cases[size] = functools.partial(ask, signature, rows)
    for size, answers in in_turn(cases, repeats).items():
        ms = 1000 * np.median([seconds for _, seconds in answers])
        table.add_row(f"{size}", f"{ms:.0f}", f"{ms / size:.1f}")
    return table


def with_hardest(signature, easy, hardest, budgets, repeats):
    table = Table(
        "budget of a row",
        "ms, median",
        "ms, longest",
        "votes of the hardest",
        "easy rows certified",
        title="15 easy rows and the hardest one, a batch",
    )
    many = np.resize(easy, (256, *easy.shape[1:]))
    easy = many[:15]
    rows = np.concatenate([easy, hardest])
    cases = {
        "without it": functools.partial(ask, signature, easy),
        "8 full passes": functools.partial(ask, signature, many, max_passes=8),
    }
    for budget in budgets:
        name = ", ".join(f"{name} {value:,}" for name, value in budget.items())
        cases[name or "none"] = functools.partial(ask, signature, rows, **budget)
    for name, answers in in_turn(cases, repeats).items():
        ms = 1000 * np.array([seconds for _, seconds in answers])
        with_it = [answer for answer, _ in answers if len(answer["votes"]) == 16]
        votes = [answer["num_samples"][-1] for answer in with_it]
        certified = [answer["certified"][:-1].mean() for answer in with_it]
        table.add_row(
            name,
            f"{np.median(ms):.0f}",
            f"{ms.max():.0f}",
            f"{np.mean(votes):,.0f}" if with_it else "",
            f"{np.mean(certified):.3f}" if with_it else "",
        )
    return table


class Server:
    """`ray_serve.py` on a free port of the loopback, while the block lasts."""

    def __init__(self, folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, str(SERVING / "ray_serve.py"), str(folder)]
        self.command = [*command, "--port", str(self.port), *map(str, options)]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("ready"):
                return self
        raise RuntimeError("The server did not start.")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate(timeout=60)


def under_load(folder, signature, easy, hardest, args):
    table = Table(title=f"{args.clients} clients, {args.seconds:g} s each, Ray Serve")
    for column in (
        "requests",
        "hard",
        "a second",
        "p50 ms",
        "p99 ms",
        "max ms",
        "longest batch ms",
        "longest before its batch ms",
        "errors, lost, wrong",
    ):
        table.add_column(column, justify="right")
    options = ["--max-batch-size", args.clients, "--batch-wait-timeout-s", args.wait]
    options += ["--seconds", 60 + 4 * args.seconds]
    budget = NO_BUDGET | {"max_passes": args.max_passes}
    replies_of = {}
    with Server(folder, *options) as server:
        for name, hard, most in (
            ("easy", None, NO_BUDGET),
            ("hardest, no budget", hardest, NO_BUDGET),
            (f"hardest, {args.max_passes} passes", hardest, budget),
        ):
            replies_of[name] = (
                most,
                load.run(
                    lambda: load.Http(server.url),
                    easy,
                    args.clients,
                    args.seconds,
                    most,
                    hard,
                    args.hard_share,
                ),
            )
    for name, (most, replies) in replies_of.items():
        answered = [reply for reply in replies if reply.answer]
        wrong = load.audit(signature, answered, most)
        counts = load.summary(replies, args.seconds, wrong)
        others = [reply for reply in replies if not reply.hard]
        found = load.summary(others, args.seconds, wrong)
        batches = np.array([reply.answer["batch_seconds"] for reply in answered])
        before = np.array([reply.seconds for reply in answered]) - batches
        table.add_row(
            name,
            f"{len(replies) - len(others)}",
            f"{counts['a second']}",
            *(f"{found[key]:.0f}" for key in ("p50 ms", "p99 ms", "max ms")),
            f"{1000 * batches.max():.0f}",
            f"{1000 * before.max():.0f}",
            f"{counts['errors']}, {counts['lost']}, {counts['wrong']}",
        )
        print(name, "decisions", counts["decisions"], "of others", found["decisions"])
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument(
        "--seconds", type=float, default=60, help="of each load; 0: none"
    )
    parser.add_argument("--hard-share", type=float, default=0.01)
    parser.add_argument("--max-passes", type=int, default=8)
    parser.add_argument("--forward-batch-size", type=int, default=2048)
    parser.add_argument("--wait", type=float, default=0.01, help="for a batch to fill")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder) / "1"
        x = export(folder, args.forward_batch_size)
        served = tf.saved_model.load(folder)
        signature = served.signatures["seeded_budgeted"]
        easy, hardest = find_rows(signature, x)
        alone = [ask(signature, hardest, seed) for seed in range(args.repeats)]
        votes = [int(answer["num_samples"][0]) for answer, _ in alone]
        print(f"{len(easy)} easy rows; the hardest alone: {votes} votes, median")
        print(f"{1000 * np.median([seconds for _, seconds in alone]):.0f} ms")
        before = time_of_a_pass(signature, easy, args.repeats)
        ms = 1000 * np.median(before)
        print(f"a full pass: {ms:.0f} ms, {1000 / ms:.0f} passes a second")
        console.print(merged(signature, easy, (1, 4, 16, 64, 256), args.repeats))
        budgets = [{}]
        budgets += [{"max_passes": most} for most in (4, 6, 8, 16, 32)]
        budgets += [{"max_samples": most} for most in (1000, 2000, 4000, 8000)]
        console.print(with_hardest(signature, easy, hardest, budgets, args.repeats))

        if not args.seconds:
            return
        table = under_load(folder, signature, easy, hardest, args)
        times = np.append(before, time_of_a_pass(signature, easy, args.repeats))
        ms = 1000 * np.array([np.median(times), times.max()])
        console.print(table)
        bound = 1000 * args.wait + 2 * args.max_passes * ms
        print(f"a full pass, before and after: {ms[0]:.0f} ms, longest {ms[1]:.0f} ms")
        print(f"bound of the last row: {bound[0]:.0f} ms, {bound[1]:.0f} ms")


if __name__ == "__main__":
    main()
