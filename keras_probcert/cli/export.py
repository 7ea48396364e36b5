"""A SavedModel for TF Serving that answers with certificates.

examples:
  keras-probcert export model.keras serving/1 --perturbation linf --epsilon 0.1
"""

import pathlib
import sys

from keras_probcert.cli import predictor


def add_arguments(parser):
    predictor.add_model(parser)
    parser.add_argument("folder", help="what to write, for TF Serving …/name/1")
    parser.add_argument(
        "--overwrite", action="store_true", help="even if something is there already"
    )
    predictor.add_arguments(parser)
    parser.add_argument(
        "--invalid",
        choices=("error", "refuse"),
        default="error",
        help="whether one invalid row fails its request (default) or only itself",
    )


def run(args):
    folder = pathlib.Path(args.folder)
    if not args.overwrite and folder.exists() and any(folder.iterdir()):
        # A server that is running would take it for the version that it has loaded.
        raise ValueError(
            "`folder` must be new or empty, unless `--overwrite` is given. "
            f"Received: folder={folder}"
        )
    predictor.predictor(args).export(args.folder, invalid=args.invalid)
    print(f"written to {args.folder}", file=sys.stderr)
    return 0
