"""A `CertifiedPredictor` from the arguments."""

import argparse

AMOUNTS = {
    "linf": ("LInf", "radius"),
    "l2": ("L2", "radius"),
    "l1": ("L1", "radius"),
    "l0": ("L0", "number of coordinates"),
    "gaussian": ("Gaussian", "standard deviation"),
    "laplace": ("Laplace", "scale"),
    "translation": ("Translation", "fraction of the size"),
    "rotation": ("Rotation", "degrees"),
    "scale": ("Scale", "fraction"),
}


TEST = ("kappa", "alpha", "max_samples")


def add_model(parser):
    parser.add_argument("model", help="a .keras file; loaded in Keras' safe mode")
    add_from_logits(parser)


def add_from_logits(parser):
    parser.add_argument(
        "--from-logits",
        action=argparse.BooleanOptionalAction,
        help="what a single output unit gives, where its layer does not show it",
    )


def add_arguments(parser):
    parser.add_argument(
        "--perturbation",
        choices=AMOUNTS,
        help="the vicinity; by default the one that the model was trained with",
    )
    amounts = ", ".join(f"{name}: {what}" for name, (_, what) in AMOUNTS.items())
    parser.add_argument("--epsilon", type=float, help=f"its size ({amounts})")
    parser.add_argument(
        "--clip",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="the valid input range, 0 1 by default",
    )
    parser.add_argument("--no-clip", action="store_true", help="no input range")
    add_test(parser)


def add_test(parser):
    parser.add_argument("--kappa", type=float, help="tolerated disagreement; 0.01")
    parser.add_argument("--alpha", type=float, help="significance level; 0.01")
    parser.add_argument("--max-samples", type=int, help="most votes an input may take")


def load_model(path):
    """The model of a `.keras` file, with nothing in it run that it brings along.

    Raises:
        ValueError: if there is no such file, or what is in it is not known.
    """
    import keras

    import keras_probcert  # noqa: F401 (registers what such files name)

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except TypeError as error:  # Of a layer that is not known here.
        raise ValueError(str(error)) from error


def predictor(args):
    """The predictor of the arguments, or the one in the file."""
    import keras_probcert

    model = load_model(args.model)
    given = {
        name: getattr(args, name)
        for name in ("perturbation", "epsilon", "clip", "from_logits", *TEST)
        if getattr(args, name) is not None
    }
    given |= {"no_clip": True} if args.no_clip else {}
    if isinstance(model, keras_probcert.CertifiedPredictor):
        if given:
            raise ValueError(
                "`model` is a CertifiedPredictor, which brings its own arguments. "
                f"Received: {given}"
            )
        return model
    if (args.perturbation is None) != (args.epsilon is None):
        raise ValueError(
            "`--perturbation` and `--epsilon` must be given together. "
            f"Received: perturbation={args.perturbation}, epsilon={args.epsilon}"
        )
    perturbation = None
    if args.perturbation is None:
        if args.clip is not None or args.no_clip:
            raise ValueError(
                "`--clip` and `--no-clip` are for `--perturbation`; without it the "
                "range is that of training. Received: no perturbation"
            )
    else:
        kind, _ = AMOUNTS[args.perturbation]
        amount = args.epsilon
        if args.perturbation == "l0" and amount.is_integer():
            amount = int(amount)
        clip = None if args.no_clip else tuple(args.clip or (0.0, 1.0))
        perturbation = getattr(keras_probcert, kind)(amount, clip=clip)
    return keras_probcert.CertifiedPredictor(
        model,
        perturbation,
        kappa=args.kappa,
        alpha=args.alpha,
        max_samples=args.max_samples,
        from_logits=args.from_logits,
    )
