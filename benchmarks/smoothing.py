"""Images per second of CERTIFY over ART's and over a loop in PyTorch; and at a radius.

The same MNIST images, σ, n₀ and n on every side: `SmoothedClassifier`, ART's
`TensorFlowV2RandomizedSmoothing` on the same Keras model (where ART is installed), and
the published loop's shape (one image at a time, noise and votes a batch at a time) in
PyTorch on the same weights. Each takes the fastest of its batch sizes; then they run
in turn, and the ratios are of medians. Verdicts are compared. Last: the samples that
"certified at r = 0.5?" needs in the sequential test, against a fixed number with the
same error and at least its power.

    python benchmarks/smoothing.py MODEL.keras [--torch PYTHON]

`MODEL.keras` is a network of MNIST trained under noise (one of examples/smoothing.py).
"""

import argparse
import functools
import importlib.util
import json
import pathlib
import sys
import tempfile
import time

from sides import Side, save_network, serve

TWIN = pathlib.Path(__file__).parent.parent / "tests" / "parity"
BATCHES = (512, 1024, 2048, 4096)


def torch_side(folder, settings):
    """The published loop in PyTorch, in both memory layouts."""
    sys.path.insert(0, str(TWIN))
    import numpy as np
    import torch
    from torch_twin import Twin, images_first

    sigma = settings["sigma"]
    with np.load(folder / "images.npz") as file:
        images = file["x"]

    @torch.no_grad()
    def votes(model, x, count, batch, layout):
        found = torch.zeros(10)
        while count > 0:
            size = min(batch, count)
            copies = x.repeat((size, 1, 1, 1)).contiguous(memory_format=layout)
            outputs = model(copies + torch.randn_like(copies) * sigma)
            found += torch.bincount(outputs.argmax(1), minlength=10)
            count -= size
        return found

    @functools.cache
    def twin(layout):
        return Twin(folder / "network.npz", torch.float32).to(memory_format=layout)

    def run(rows, n, batch, layout):
        model = twin(layout)
        x = images_first(images[:rows], torch.float32)
        total = 0
        for i in range(rows):
            label = votes(model, x[i : i + 1], settings["n0"], batch, layout).argmax()
            total += votes(model, x[i : i + 1], n, batch, layout)[label]
        return total / rows / n

    tasks = {}
    for batch in BATCHES:
        for name, layout in (
            ("contiguous", torch.contiguous_format),
            ("channels_last", torch.channels_last),
        ):
            for rows, n in ((2, 4000), (settings["images"], settings["n"])):
                tasks[f"{batch} {name} {rows} {n}"] = (
                    lambda a=(rows, n, batch, layout): run(*a)
                )
    serve(tasks)


def certify_with_art(model, x, sigma, n0, n, alpha, batch):
    """Labels and radii as ART has them."""
    from art.estimators.certification.randomized_smoothing import (
        TensorFlowV2RandomizedSmoothing,
    )

    smoothed = TensorFlowV2RandomizedSmoothing(
        model=lambda batch, training=False: model(batch, training=False),
        nb_classes=10,
        input_shape=x.shape[1:],
        sample_size=n0,
        scale=sigma,
        alpha=alpha,
    )
    return smoothed.certify(x, n=n, batch_size=batch)


def main():
    if sys.argv[1:2] == ["--side"]:
        folder = pathlib.Path(sys.argv[3])
        torch_side(folder, json.loads((folder / "settings.json").read_text()))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .keras file, of examples/smoothing.py")
    parser.add_argument("--torch", help="python with torch")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--radius", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    import keras
    import numpy as np
    import scipy.stats
    import tensorflow_datasets as tfds

    from keras_probcert import SmoothedClassifier
    from keras_probcert.sequential import ClopperPearsonTest

    alpha, n0 = 0.001, 100
    images, labels = tfds.as_numpy(
        tfds.load(
            "mnist", split=f"test[:{args.images}]", batch_size=-1, as_supervised=True
        )
    )
    x = images.astype("float32") / 255
    model = keras.saving.load_model(args.model)

    def ours(rows, n, batch):
        smoothed = sides.setdefault(
            (n, batch),
            SmoothedClassifier(model, args.sigma, n=n, forward_batch_size=batch),
        )
        return smoothed.predict(x[:rows], verbose=0)

    def art(rows, n, batch):
        return certify_with_art(model, x[:rows], args.sigma, n0, n, alpha, batch)

    sides, functions = {}, {"ours": ours}
    if importlib.util.find_spec("art"):
        functions["ART"] = art
    else:
        print("ART is not installed")

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.savez(folder / "images.npz", x=x)
        save_network(model, folder / "network.npz")
        settings = {"sigma": args.sigma, "n0": n0, "n": args.n, "images": args.images}
        (folder / "settings.json").write_text(json.dumps(settings))
        runs = {}
        for name, function in functions.items():
            for batch in BATCHES:
                function(2, 4000, batch)  # Compiles.
            trials = {b: timed(function, 2, 4000, b)[0] for b in BATCHES}
            best = min(trials, key=trials.get)
            print(f"{name}: fastest at {best} copies a pass")
            runs[name] = lambda f=function, b=best: timed(f, args.images, args.n, b)
        if args.torch:
            twin = Side(__file__, args.torch, "torch", folder)
            layouts = ("contiguous", "channels_last")
            settings = [f"{b} {layout}" for b in BATCHES for layout in layouts]
            trials = {s: twin.run(f"{s} 2 4000")[0] for s in settings}
            best = min(trials, key=trials.get)
            print(f"PyTorch: fastest at {best}")
            runs["PyTorch"] = lambda: twin.run(f"{best} {args.images} {args.n}")
        seconds, found = {name: [] for name in runs}, {}
        for _ in range(args.repeats):
            for name, run in runs.items():
                taken, found[name] = run()
                seconds[name].append(taken)
                print(f"{name}: {args.images / taken:.2f} images/s", flush=True)
        if args.torch:
            twin.end()
    medians = {name: np.median(taken) for name, taken in seconds.items()}
    for name in [name for name in runs if name != "ours"]:
        print(f"ours over {name}: {medians[name] / medians['ours']:.2f}")
    results = found["ours"]
    if "ART" in found:
        label, radius = found["ART"]
        same = label == results["label"]
        print(
            f"the same verdict as ART's on {same.sum()} of {len(x)}; mean radius "
            f"{results['radius'].mean():.4f}, ART's {radius.mean():.4f}"
        )

    smoothed = SmoothedClassifier(model, args.sigma, n=args.n)
    at_radius = smoothed.at_radius(args.radius)
    test, start = at_radius.test, time.perf_counter()
    adaptive = at_radius.predict(x, seed=0, verbose=0)
    seconds = time.perf_counter() - start
    # As many samples as give the sequential test's power where it is a half or more.
    agreement = np.linspace(1 - test.kappa, 1, 200)[1:-1]
    power = np.array([test.operating_characteristics(p)["certify"] for p in agreement])
    wanted = power > 0.5
    low, high = 10, test.max_samples
    while low < high:
        n = (low + high) // 2
        k = np.arange(n + 1)
        enough = scipy.stats.binom.cdf(n - k, n, test.kappa) <= alpha
        reached = scipy.stats.binom.sf(k[enough][0] - 1, n, agreement[wanted])
        low, high = (
            (low, n) if (reached >= power[wanted] - 0.01).all() else (n + 1, high)
        )
    fixed = ClopperPearsonTest(test.kappa, alpha, low)
    whole = smoothed.at_radius(args.radius, test=fixed).predict(x, seed=0, verbose=0)
    print(
        f"at r = {args.radius}, kappa = {test.kappa:.4f}: {low + n0} samples fixed "
        f"(with n0), {adaptive['num_samples'].mean():.0f} sequentially "
        f"({(low + n0) / adaptive['num_samples'].mean():.1f} times fewer, "
        f"{len(x) / seconds:.1f} images/s); "
        f"certified {adaptive['certified'].mean():.3f} and "
        f"{whole['certified'].mean():.3f}, at n = {args.n} "
        f"{(results['radius'] > args.radius).mean():.3f}"
    )


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
