"""Five training methods under AutoAttack, the 25 attacks of Table 9, and attacks on
the certificate itself, on MNIST.

Trains on `train[:10000]` as `training_methods.py` does (the Basic ConvNet, the same
number of forward-backward rows for each), then attacks the first images of `test` in
the L∞ ball of ε = 0.3, and reports defence success rates: of the plain model, of the
majority vote of a `CertifiedPredictor` (κ = α = 0.01) on the same adversarial
examples, and of the vote under attacks that know it. Two of cleverhans' attacks are
extra rows. Results are written after each attack; a run that was stopped goes on
where it was.

    python examples/attacks.py
"""

import argparse
import inspect
import json
import pathlib

import keras
from cleverhans_attacks import CleverHansCW, CleverHansSPSA
from rich.console import Console
from rich.table import Table
from training_methods import EPSILON, load, train

from keras_probcert import CertifiedPredictor, LInf
from keras_probcert.attacks import (
    TABLE_9,
    AutoAttack,
    Deny,
    Forge,
    SmoothedPGD,
    VoteSearch,
    evaluate_attack,
)

METHODS = ("erm", "da", "pgdt", "trades", "variance_minimizing")


def table_9(epsilon):
    """AutoAttack and the 25: TorchAttacks' defaults, L∞ radii of `epsilon`."""
    found = {"AutoAttack": AutoAttack("linf", epsilon)}
    for name, attack in TABLE_9.items():
        # PGDL2 keeps its L2 radius of 1.
        bounded = "epsilon" in inspect.signature(attack).parameters and name != "PGDL2"
        found[name] = attack(epsilon=epsilon) if bounded else attack()
    return found


def cleverhans(epsilon):
    """Two attacks of cleverhans, at its own settings; slow."""
    return {
        "cleverhans' CW": CleverHansCW(),
        "cleverhans' SPSA": CleverHansSPSA(epsilon),
    }


def certificate_attacks(draws):
    """Attacks on the vote, with each number of draws a step."""
    return {
        **{f"SmoothedPGD, m = {m}": SmoothedPGD(num_samples=m) for m in draws},
        "VoteSearch": VoteSearch(),
        "Deny": Deny(),
        "Forge": Forge(),
    }


def evaluate(results, write, name, model, x, y, attacks, transferred, seed):
    """Fills in what `results` lacks of one model.

    Args:
        results: a dict to write to.
        write: saves it.
        name: the model's.
        model: the model.
        x: images.
        y: labels.
        attacks: a dict of attacks.
        transferred: whether they are attacks on the plain model, whose adversarial
            examples are then shown to the vote, too.
        seed: an int.
    """
    certified = CertifiedPredictor(model, LInf(EPSILON), kappa=0.01, alpha=0.01)

    def record(attack, kind, victim, function, clean):
        evaluation = evaluate_attack(
            victim, function, x, y, seed=seed, batch_size=len(x), verbose=0, clean=clean
        )
        results.setdefault(f"{name}, {attack}", {})[kind] = evaluation.to_dict()
        print(name, attack, evaluation, flush=True)
        return evaluation

    clean = plain_clean = None
    for attack, function in attacks.items():
        if "vote" in results.get(f"{name}, {attack}", {}):
            continue
        if transferred:
            plain = record(attack, "plain", model, function, plain_clean)
            plain_clean = plain_clean or plain

            def function(model, x, y, found=plain.x_adv):
                return found

        voted = record(attack, "vote", certified, function, clean)
        clean = clean or voted
        write()


def show(results):
    table = Table(title="Defence success, percent: plain model / vote (denied, forged)")
    table.add_column("attack")
    methods = [m for m in METHODS if any(key.startswith(m) for key in results)]
    for name in methods:
        table.add_column(name)
    for attack in dict.fromkeys(key.split(", ", 1)[1] for key in results):
        cells = []
        for name in methods:
            found = results.get(f"{name}, {attack}", {})
            cell = ""
            if "plain" in found:
                cell += f"{100 * found['plain']['defence_success_rate']:.0f} / "
            if "vote" in found:
                vote = found["vote"]
                rates = [
                    f"{100 * vote[key]:.0f}"
                    for key in ("defence_success_rate", "denied_rate", "forged_rate")
                ]
                cell += f"{rates[0]} ({rates[1]}, {rates[2]})"
            cells.append(cell)
        table.add_row(attack, *cells)
    Console(width=140).print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000, help="budget of rows")
    parser.add_argument("--train", type=int, default=10_000, help="training images")
    parser.add_argument("--test", type=int, default=100, help="attacked images")
    parser.add_argument(
        "--certificate-test",
        type=int,
        default=25,
        help="images for attacks on the certificate, and for cleverhans'",
    )
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--output", type=pathlib.Path, default="attacks.json")
    parser.add_argument("--models", type=pathlib.Path, default="attacked-models")
    args = parser.parse_args()

    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    args.models.mkdir(exist_ok=True)
    x, y = load(f"test[:{args.test}]")

    def write():
        args.output.write_text(json.dumps(results, indent=1))

    none = {"No Attack": lambda model, x, y: x}
    few = args.certificate_test
    for attacks, rows, transferred in (
        ({**none, **table_9(EPSILON)}, args.test, True),
        (certificate_attacks(args.draws), few, False),
        (cleverhans(EPSILON), few, True),
    ):
        for name in args.methods:
            file = args.models / f"{name}.keras"
            if not file.exists():
                train_data = load(f"train[:{args.train}]")
                train(name, *train_data, args.rows, args.seed)[0].save(file)
            model = keras.models.load_model(file)
            batch = x[:rows], y[:rows]
            evaluate(
                results, write, name, model, *batch, attacks, transferred, args.seed
            )
    show(results)


if __name__ == "__main__":
    main()
