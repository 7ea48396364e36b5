"""Labels and certificates of inputs, a row each.

examples:
  keras-probcert certify model.keras digits.npz --perturbation linf --epsilon 0.1
  keras-probcert certify model.keras mnist:test[:100] --kappa 0.05 --csv > rows.csv
  keras-probcert certify model.keras x.npz --at-least 0.9 || echo not robust enough
"""

import sys

from keras_probcert.cli import data, output, predictor


def add_arguments(parser):
    predictor.add_model(parser)
    data.add_arguments(parser)
    predictor.add_arguments(parser)
    parser.add_argument("--seed", type=int, help="makes the run repeatable")
    output.add_demand(parser, "the share of certified rows")
    output.add_arguments(parser)


def run(args):
    certified = predictor.predictor(args)
    x, y = data.load(args)
    results = certified.predict(x, seed=args.seed, verbose=0)
    output.show(args, output.columns(results, y), "Certificates", most=20)
    rate = float(results["certified"].mean())
    print(
        f"{rate:.4g} of {len(x)} rows certified "
        f"({certified.perturbation!r}, kappa={certified.kappa}, "
        f"alpha={certified.alpha}, {results['num_samples'].mean():,.0f} votes a row)",
        file=sys.stderr,
    )
    return int(rate < args.at_least)
