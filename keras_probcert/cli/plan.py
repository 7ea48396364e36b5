"""What certificates cost and how often they err, exactly, before any is issued.

Alone: for each true agreement of an input, the probabilities of certifying, rejecting
and leaving it undecided, and the samples it takes.

With --rows: what a data set of so many inputs takes. How many of them are robust is
said by --robust-share, or learned with --model from a --pilot: some rows like these,
which it certifies. The time follows from --rate, or is measured here with --model.

examples:
  keras-probcert plan
  keras-probcert plan --kappa 0.05 --alpha 0.001 --agreement 1 0.99 0.95 0.9
  keras-probcert plan --rows 10000 --robust-share 0.96
  keras-probcert plan --rows 10000 --robust-share 0.96 --rate 9400 --hours 0.1
  keras-probcert plan --rows 10000 --model model.keras --perturbation linf \\
      --epsilon 0.3 --pilot 'mnist:train[:200]' --workers 4
"""

import argparse

from keras_probcert.cli import data, output, predictor


def add_arguments(parser):
    predictor.add_arguments(parser)
    parser.add_argument(
        "--agreement",
        type=float,
        nargs="+",
        help="true agreements; by default a spread around 1 - kappa. With --rows: of "
        "inputs like these",
    )
    parser.add_argument("--rows", type=int, help="inputs to be certified")
    parser.add_argument(
        "--robust-share", type=float, help="expected share of robust inputs"
    )
    parser.add_argument("--model", help="a .keras file; loaded in Keras' safe mode")
    predictor.add_from_logits(parser)
    parser.add_argument(
        "--pilot",
        metavar="DATA",
        help="some rows like those to be certified, as other commands take their data",
    )
    parser.add_argument(
        "--pilot-rows", type=int, default=200, help="rows of the pilot, 200 by default"
    )
    parser.add_argument(
        "--divide-by",
        type=float,
        metavar="NUMBER",
        help="divides the pilot's inputs; by default 255 where they are integers",
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="COPIES",
        help="perturbed copies a second on one worker; measured here with --model",
    )
    parser.add_argument("--workers", type=int, help="workers that share the rows")
    parser.add_argument("--hours", type=float, help="hours that are there")
    output.add_arguments(parser)


def run(args):
    if args.rows is None:
        needs_rows = "robust_share", "model", "pilot", "rate", "workers", "hours"
        needs_rows += "perturbation", "epsilon"
        given = [name for name in needs_rows if getattr(args, name) is not None]
        if given:
            raise ValueError(
                "`--rows` must be given, the number of inputs to be certified. "
                f"Received: only {given}"
            )
        return _by_agreement(args)
    return _of_data_set(args)


def _test(args):
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
    return ExactTest(**{"kappa": 0.01, "alpha": 0.01, **given})


def _by_agreement(args):
    test = _test(args)
    agreements = args.agreement
    if agreements is None:
        agreements = test.default_agreements().tolist()
    found = [test.operating_characteristics(p) for p in agreements]
    rows = [
        {"agreement": p, **{name: float(value) for name, value in row.items()}}
        for p, row in zip(agreements, found, strict=True)
    ]
    output.show(args, rows, _title(test))
    return 0


def _of_data_set(args):
    import dataclasses

    from keras_probcert import forward_rate, plan_certification

    pilot, rate = None, args.rate
    if args.model is not None:
        certified = predictor.predictor(args)
        test, x = certified.test, None
        if args.pilot is not None:
            x = _pilot_inputs(args, certified)
            pilot = certified.predict(x, verbose=0)
        if rate is None:
            rate = forward_rate(certified, x)
    else:
        for name in ("pilot", "perturbation", "epsilon"):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"`--model` must be given with `--{name}`. Received: no model"
                )
        test = _test(args)
    plan = plan_certification(
        test,
        args.rows,
        robust_share=args.robust_share,
        agreement=args.agreement,
        pilot=pilot,
        rate=rate,
        workers=args.workers,
        hours=args.hours,
    )
    if args.json or args.csv:
        rows = [{**dataclasses.asdict(plan), "seconds": plan.seconds}]
    else:
        rows = [{"what": what, "plan": much} for what, much in plan.lines()]
    output.show(args, rows, _title(test))
    return 0


def _pilot_inputs(args, certified):
    of_pilot = {"data": args.pilot, "rows": args.pilot_rows}
    of_pilot = argparse.Namespace(**of_pilot, divide_by=args.divide_by)
    x, _ = data.load(of_pilot, certified)
    return x


def _title(test):
    return f"kappa={test.kappa:g}, alpha={test.alpha:g}, up to {test.max_samples} votes"
