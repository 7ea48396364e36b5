"""A folder of results as one HTML page and as Markdown.

examples:
  keras-probcert report results
  keras-probcert report results --html public/index.html --markdown docs/results.md
"""

import sys


def add_arguments(parser):
    parser.add_argument("folder", help="with run.json and a JSON file for each table")
    parser.add_argument("--html", metavar="FILE", help="by default FOLDER/report.html")
    parser.add_argument(
        "--markdown", metavar="FILE", help="by default FOLDER/report.md"
    )


def run(args):
    from keras_probcert.report import write_report

    for path in write_report(args.folder, args.html, args.markdown):
        print(f"written to {path}", file=sys.stderr)
    return 0
