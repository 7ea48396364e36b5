"""The paper's metrics on labelled inputs, with intervals.

examples:
  keras-probcert evaluate model.keras digits.npz --perturbation linf --epsilon 0.1
  keras-probcert evaluate model.keras 'mnist:test[:500]' --json
"""

from keras_probcert.cli import data, output, predictor


def add_arguments(parser):
    predictor.add_model(parser)
    data.add_arguments(parser)
    predictor.add_arguments(parser)
    parser.add_argument("--seed", type=int, help="makes the run repeatable")
    output.add_demand(parser, "the certified robust accuracy")
    output.add_arguments(parser)


def run(args):
    from keras_probcert.metrics import success_rate

    certified = predictor.predictor(args)
    x, y = data.load(args, certified, labels=True)
    found = certified.evaluate(x, y, seed=args.seed, verbose=0, return_dict=True)
    rows = []
    for name, value in found.items():
        row = {"metric": name, "value": value, "lower": None, "upper": None}
        row |= {"successes": None, "rows": len(x)}
        if "num_samples" not in name:
            successes = round(value * len(x))
            rate = success_rate([i < successes for i in range(len(x))])
            row |= {"lower": rate.lower, "upper": rate.upper, "successes": successes}
        rows.append(row)
    settings = {**output.settings_of(certified), "seed": args.seed}
    output.show(args, rows, "95 % intervals", settings=settings)
    return int(found["certified_robust_accuracy"] < args.at_least)
