"""How many labelled inputs a model still gets right under attack.

With `--vote`, or if the file holds a CertifiedPredictor, its majority vote is attacked
by transfer, and SmoothedPGD, Deny and Forge attack it directly. The vicinity in which
it votes is that of the predictor in the file; of any other model it is the L∞ ball of
`--epsilon`.

examples:
  keras-probcert attack model.keras digits.npz --epsilon 0.1
  keras-probcert attack model.keras 'mnist:test[:20]' --epsilon 0.3 --attacks PGD CW
  keras-probcert attack model.keras x.npz --epsilon 0.1 --vote --attacks PGD Deny
"""

import difflib
import inspect

from keras_probcert.attacks import TABLE_9
from keras_probcert.cli import data, output, predictor

VOTE = ("SmoothedPGD", "Deny", "Forge")


def add_arguments(parser):
    predictor.add_model(parser)
    data.add_arguments(parser)
    parser.add_argument(
        "--attacks",
        nargs="+",
        default=["AutoAttack"],
        metavar="NAME",
        help=f"AutoAttack (default), {', '.join(TABLE_9)}; with --vote, also "
        + ", ".join(VOTE),
    )
    parser.add_argument(
        "--epsilon",
        type=float,
        required=True,
        help="the attacker's radius in L∞ (of PGDL2 in L2; CW, OnePixel, Pixle and "
        "GaussianNoise have none: column `norm`)",
    )
    parser.add_argument("--vote", action="store_true", help="attack the majority vote")
    predictor.add_test(parser)
    parser.add_argument(
        "--clip",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the valid input range, by default a saved predictor's own, else 0 1",
    )
    parser.add_argument("--seed", type=int, default=0, help="0 by default")
    output.add_demand(parser, "the defence success rate of an attack")
    output.add_arguments(parser)


def run(args):
    from keras_probcert import CertifiedPredictor, LInf, attacks

    victim = predictor.load_model(args.model)
    test = {name: getattr(args, name) for name in predictor.TEST}
    given = {name: value for name, value in test.items() if value is not None}
    saved = isinstance(victim, CertifiedPredictor)
    if given and (saved or not args.vote):
        why = "`model` brings its own" if saved else "they are for `--vote`"
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in given)} cannot be given, as {why}. "
            f"Received: {given}"
        )
    vote = args.vote or saved
    known = _known(args.attacks, vote)
    clip = (0.0, 1.0) if args.clip is None else tuple(args.clip)
    if saved and args.clip is None:
        clip = victim.perturbation.clip
    if saved and args.from_logits is not None:
        raise ValueError(
            "`--from-logits` cannot be given, as `model` brings its own. "
            f"Received: from_logits={args.from_logits}"
        )
    if vote and not saved:
        victim = CertifiedPredictor(
            victim,
            LInf(args.epsilon, clip=clip),
            from_logits=args.from_logits,
            **test,
        )
    x, y = data.load(args, victim, labels=True)
    rows = []
    for name in args.attacks:
        accepted = inspect.signature(known[name]).parameters
        given = {"epsilon": args.epsilon, "norm": "linf", "clip": clip}
        given = {k: v for k, v in given.items() if k in accepted}
        attack = known[name](**given)
        norm = attack.norm or given["norm"] if "epsilon" in given else "none"
        found = attacks.evaluate_attack(
            victim,
            attack,
            x,
            y,
            seed=args.seed,
            clip=clip,
            from_logits=args.from_logits,
            verbose=0,
        )
        for kind, rate in found.rates.items():
            rows.append(
                {
                    "attack": name,
                    "norm": norm,
                    "rate": kind,
                    "value": rate.rate,
                    "lower": rate.lower,
                    "upper": rate.upper,
                    "successes": rate.successes,
                    "of": rate.trials,
                    "seconds": found.seconds,
                }
            )
    settings = {"epsilon": args.epsilon, "seed": args.seed, "rows": len(x)}
    title = f"{len(x)} rows, attacks within epsilon={args.epsilon:g}"
    if vote:
        settings |= output.settings_of(victim)
        title += f"; votes in {victim.perturbation!r}"
    output.show(args, rows, title, settings=settings)
    defended = [r["value"] for r in rows if r["rate"] == "defence_success_rate"]
    return int(min(defended) < args.at_least)


def _known(names, vote):
    """The attacks by name; checks that `names` are among them.

    Args:
        names: what `--attacks` was given.
        vote: whether attacks on the vote may be.
    """
    from keras_probcert import attacks

    known = {"AutoAttack": attacks.AutoAttack, **attacks.TABLE_9}
    voting = {name: getattr(attacks, name) for name in VOTE}
    if vote:
        known |= voting
    for name in names:
        if name in voting and not vote:
            raise ValueError(
                f"`--attacks {name}` attacks the vote, and needs `--vote`. "
                "Received: no --vote"
            )
        if name not in known:
            lower = {other.lower(): other for other in known}
            near = difflib.get_close_matches(name.lower(), lower, 1)
            hint = f" Did you mean {lower[near[0]]}?" if near else ""
            raise ValueError(
                f"`--attacks` must be among {', '.join(known)}. Received: {name}.{hint}"
            )
    return known
