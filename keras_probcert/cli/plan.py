"""What a certificate costs and how often it errs, exactly, before any is issued.

For each true agreement of an input: the probabilities of certifying, rejecting and
leaving it undecided, and the samples it takes.

examples:
  keras-probcert plan
  keras-probcert plan --kappa 0.05 --alpha 0.001 --agreement 1 0.99 0.95 0.9
"""

from keras_probcert.cli import output, predictor


def add_arguments(parser):
    predictor.add_test(parser)
    parser.add_argument(
        "--agreement",
        type=float,
        nargs="+",
        help="true agreements; by default a spread around 1 - kappa",
    )
    output.add_arguments(parser)


def run(args):
    from keras_probcert import ExactTest

    given = {
        name: value
        for name, value in (
            ("kappa", args.kappa),
            ("alpha", args.alpha),
            ("max_samples", args.max_samples),
        )
        if value is not None
    }
    test = ExactTest(**{"kappa": 0.01, "alpha": 0.01, **given})
    agreements = args.agreement
    if agreements is None:
        agreements = test.default_agreements().tolist()
    found = [test.operating_characteristics(p) for p in agreements]
    rows = [
        {"agreement": p, **{name: float(value) for name, value in row.items()}}
        for p, row in zip(agreements, found, strict=True)
    ]
    title = (
        f"kappa={test.kappa:g}, alpha={test.alpha:g}, up to {test.max_samples} votes"
    )
    output.show(args, rows, title)
    return 0
