"""A SavedModel for TF Serving that answers with certificates.

examples:
  keras-probcert export model.keras serving/1 --perturbation linf --epsilon 0.1
"""

import sys

from keras_probcert.cli import predictor


def add_arguments(parser):
    predictor.add_model(parser)
    parser.add_argument("folder", help="what to write, for TF Serving …/name/1")
    predictor.add_arguments(parser)
    parser.add_argument(
        "--invalid",
        choices=("error", "refuse"),
        default="error",
        help="whether one invalid row fails its request (default) or only itself",
    )


def run(args):
    predictor.predictor(args).export(args.folder, invalid=args.invalid)
    print(f"written to {args.folder}", file=sys.stderr)
    return 0
