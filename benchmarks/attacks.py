"""Images per second of PGD-20 and AutoAttack over PyTorch's, on the same weights.

Each side lives in a process of its own and waits for its turn, so imports and
compilation are not timed and the two never run at once. PyTorch takes the faster of
its two memory layouts. The ratio is of medians over interleaved runs.

    python benchmarks/attacks.py MODEL.keras --torch PYTHON [--auto-attack FOLDER]

`MODEL.keras` is an adversarially trained network of MNIST; PYTHON that of an
environment with torch and torchattacks (CONTRIBUTING says how to make one); FOLDER a
copy of AutoAttack's repository, whose attack is the reference where it is given.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import tempfile

from sides import Side, save_network, serve

HERE = pathlib.Path(__file__).parent
TWIN = HERE.parent / "tests" / "parity"


def keras_side(folder, settings):
    """Ours."""
    import keras
    import numpy as np

    from keras_probcert import attacks

    model = keras.saving.load_model(settings["model"])
    with np.load(folder / "images.npz") as file:
        x, y = file["x"], file["y"]

    def run(attack, rows):
        found = attack(model, x[:rows], y[:rows], seed=0, batch_size=settings["batch"])
        logits = keras.ops.convert_to_numpy(model(found, training=False))
        return np.mean(logits.argmax(axis=1) != y[:rows])

    # Kept from run to run, with what they compiled.
    epsilon = settings["epsilon"]
    pgd = attacks.PGD(epsilon, steps=20, step_size=epsilon / 4)
    auto_attack = attacks.AutoAttack("linf", epsilon)
    serve(
        {
            "pgd": lambda: run(pgd, settings["pgd_images"]),
            "auto-attack": lambda: run(auto_attack, settings["auto_attack_images"]),
        }
    )


def torch_side(folder, settings):
    """PyTorch's: TorchAttacks' PGD and the original AutoAttack."""
    sys.path.insert(0, str(TWIN))
    if settings["auto_attack"]:
        sys.path.insert(0, settings["auto_attack"])
    import numpy as np
    import torch
    import torchattacks
    from torch_twin import Twin, images_first

    torch.set_num_threads(os.cpu_count())
    with np.load(folder / "images.npz") as file:
        images, labels = file["x"], file["y"]
    y = torch.tensor(labels, dtype=torch.int64)
    epsilon, batch = settings["epsilon"], settings["batch"]

    def pgd(model, x, y):
        attack = torchattacks.PGD(model, epsilon, epsilon / 4, 20)
        return torch.cat(
            [
                attack(x[i : i + batch], y[i : i + batch])
                for i in range(0, len(x), batch)
            ]
        )

    def auto_attack(model, x, y):
        from autoattack import AutoAttack

        attack = AutoAttack(
            model, norm="Linf", eps=epsilon, device="cpu", seed=0, verbose=False
        )
        return attack.run_standard_evaluation(x, y, bs=batch)

    @functools.cache
    def twin(layout):
        return Twin(folder / "network.npz", torch.float32).to(memory_format=layout)

    def run(attack, layout, rows):
        model = twin(layout)
        x = images_first(images[:rows], torch.float32).contiguous(memory_format=layout)
        found = attack(model, x, y[:rows])
        with torch.no_grad():
            return (model(found).argmax(1) != y[:rows]).float().mean()

    served = {}
    rows = settings["pgd_images"], settings["auto_attack_images"]
    for name, layout in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        served[f"pgd {name}"] = lambda m=layout: run(pgd, m, rows[0])
        served[f"auto-attack {name}"] = lambda m=layout: run(auto_attack, m, rows[1])
    serve(served)


def prepare(args, folder):
    """Writes what the sides read."""
    import keras
    import numpy as np
    import tensorflow_datasets as tfds

    rows = max(args.pgd_images, args.auto_attack_images)
    x, y = tfds.as_numpy(
        tfds.load("mnist", split=f"test[:{rows}]", batch_size=-1, as_supervised=True)
    )
    np.savez(folder / "images.npz", x=x.astype("float32") / 255, y=y.astype("int32"))
    save_network(keras.saving.load_model(args.model), folder / "network.npz")
    settings = {
        "model": str(pathlib.Path(args.model).resolve()),
        "auto_attack": args.auto_attack
        and str(pathlib.Path(args.auto_attack).resolve()),
        "pgd_images": args.pgd_images,
        "auto_attack_images": args.auto_attack_images,
        "batch": args.batch_size,
        "epsilon": args.epsilon,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def compare(ours, theirs, attack, images, repeats):
    """Prints the ratio of medians of interleaved runs."""
    import numpy as np

    ours.run(attack)  # Compiles.
    layouts = [f"{attack} {name}" for name in ("contiguous", "channels_last")]
    first = {layout: theirs.run(layout)[0] for layout in layouts for _ in range(2)}
    fastest = min(first, key=first.get)
    print(f"PyTorch is fastest as {fastest}: {first}")
    seconds = []
    for _ in range(repeats):
        runs = ours.run(attack), theirs.run(fastest)
        seconds.append([run[0] for run in runs])
        print(
            "ours {:.1f} images/s, theirs {:.1f}; success {:.3f}, {:.3f}".format(
                *(images / run[0] for run in runs), *(run[1] for run in runs)
            ),
            flush=True,
        )
    ours_s, theirs_s = np.median(seconds, axis=0)
    print(f"{attack}: ratio of medians {theirs_s / ours_s:.2f}\n", flush=True)


def main():
    if sys.argv[1:2] == ["--side"]:
        folder = pathlib.Path(sys.argv[3])
        settings = json.loads((folder / "settings.json").read_text())
        {"keras": keras_side, "torch": torch_side}[sys.argv[2]](folder, settings)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .keras file of an MNIST network")
    parser.add_argument("--torch", required=True, help="python with torch")
    parser.add_argument("--auto-attack", help="a copy of AutoAttack's repository")
    parser.add_argument("--pgd-images", type=int, default=1000)
    parser.add_argument("--auto-attack-images", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--epsilon", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(args, folder)
        ours = Side(__file__, sys.executable, "keras", folder)
        theirs = Side(__file__, args.torch, "torch", folder)
        compare(ours, theirs, "pgd", args.pgd_images, args.repeats)
        if args.auto_attack:
            images = args.auto_attack_images
            compare(ours, theirs, "auto-attack", images, args.repeats)
        ours.end()
        theirs.end()


if __name__ == "__main__":
    main()
