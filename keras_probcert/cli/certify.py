"""Labels and certificates of inputs, a row each.

With `--output`, they are written to a folder, a whole data set by many workers if you
like; the same command goes on where it was stopped.

examples:
  keras-probcert certify model.keras digits.npz --perturbation linf --epsilon 0.1
  keras-probcert certify model.keras 'mnist:test[:100]' --kappa 0.05 --csv > rows.csv
  keras-probcert certify model.keras x.npz --at-least 0.9 || echo not robust enough
  keras-probcert certify model.keras images/ --output certified --workers 4
  keras-probcert certify model.keras images/ --output certified --ray-address auto
"""

import sys

from keras_probcert.cli import data, output, predictor
from keras_probcert.validation import check_labels


def add_arguments(parser):
    predictor.add_model(parser)
    data.add_arguments(parser)
    predictor.add_arguments(parser)
    parser.add_argument("--seed", type=int, help="makes the run repeatable")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="write Parquet files there, in the order of work, and print a summary",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="on Ray, with --output (needs [ray])"
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="of a Ray cluster, with --output"
    )
    parser.add_argument(
        "--cpus", type=float, metavar="N", help="cores of each worker, 1 by default"
    )
    parser.add_argument(
        "--gpus", type=float, metavar="N", help="GPUs of each worker, none by default"
    )
    output.add_demand(parser, "the share of certified rows")
    output.add_arguments(parser)


def run(args):
    certified = predictor.predictor(args)
    if args.output is None:
        for name in ("workers", "ray_address", "cpus", "gpus"):
            if getattr(args, name) is not None:
                option = name.replace("_", "-")
                raise ValueError(
                    f"`--{option}` needs `--output`. "
                    f"Received: {option}={getattr(args, name)}"
                )
        x, y = data.load(args, certified)
        y = None if y is None else check_labels(y, len(x), certified.num_classes)
        results = certified.predict(x, seed=args.seed, verbose=0)
        output.show(args, output.columns(results, y), "Certificates", most=20)
        rows, robust = len(x), int(results["certified"].sum())
        votes = results["num_samples"].mean()
    else:
        found = _write(args, certified)
        machines = args.json or args.csv
        lines = [{"what": k.replace("_", " "), "": v} for k, v in found.items()]
        output.show(args, [found] if machines else lines, f"Written to {args.output}")
        rows, robust = found["rows"], found["certified"]
        votes = found["votes"] / found["new_rows"] if found["new_rows"] else None
    votes = "" if votes is None else f", {votes:,.0f} votes a row"
    print(
        f"{robust} of {rows} rows certified ({certified.perturbation!r}, "
        f"kappa={certified.kappa}, alpha={certified.alpha}{votes})",
        file=sys.stderr,
    )
    return int(robust / rows < args.at_least)


def _write(args, certified):
    from keras_probcert.distributed import certify_dataset

    resources = {"num_cpus": args.cpus, "num_gpus": args.gpus}
    resources = {name: n for name, n in resources.items() if n is not None}
    try:
        return certify_dataset(
            certified,
            data.source(args, certified),
            args.output,
            seed=args.seed,
            workers=args.workers,
            ray_address=args.ray_address,
            resources=resources or None,
        )
    except KeyboardInterrupt:
        print(
            f"stopped; what is in {args.output} stays, and the same command goes on",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
