"""Reproduces the paper's tables and figures, each in one command.

    python examples/reproduce table_1 --preset smoke    minutes, scikit-learn's digits
    python examples/reproduce --preset cpu              an evening, MNIST and CIFAR-10
    python examples/reproduce --preset paper            a GPU, all of the paper

A run that was stopped, however hard, goes on where it was: trained models, epochs and
each measured number are kept in the folder, under a hash of all they depend on.
`keras-probcert report FOLDER` makes the page.
"""

import argparse
import importlib
import pathlib
import sys

ENTRIES = (
    "table_1",
    "table_10",
    "table_4",
    "figure_3",
    "figure_2",
    "table_12",
    "table_11",
    "table_2",
    "figure_radius",
    "table_3",
    "table_acr",
    "table_9",
)


def main():
    parser = argparse.ArgumentParser(
        prog="reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "entries", nargs="*", metavar="ENTRY", help=f"of {', '.join(ENTRIES)}; all"
    )
    parser.add_argument("--preset", choices=("smoke", "cpu", "paper"), default="smoke")
    parser.add_argument("--datasets", nargs="+", help="of the preset's; all of them")
    parser.add_argument("--methods", nargs="+", help="of the preset's; all of them")
    parser.add_argument("--output", type=pathlib.Path, help="reproduced/PRESET")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for entry in args.entries:
        if entry not in ENTRIES:
            parser.error(f"ENTRY must be of {', '.join(ENTRIES)}. Received: {entry}")

    from dataclasses import replace

    from run import Run
    from settings import PRESETS

    preset = PRESETS[args.preset]
    datasets = _chosen(parser, "datasets", args.datasets, list(preset.sizes))
    methods = _chosen(parser, "methods", args.methods, preset.methods)
    preset = replace(preset, methods=tuple(methods))
    folder = args.output or pathlib.Path("reproduced") / args.preset
    run = Run(preset, args.preset, folder, datasets, args.seed)
    # Where the results lie is not what they are.
    given = [*args.entries, "--preset", args.preset, "--seed", str(args.seed)]
    for name in ("datasets", "methods"):
        if getattr(args, name):
            given += [f"--{name}", *getattr(args, name)]
    run.describe(" ".join(given))
    entries = [e for e in ENTRIES if e in args.entries or not args.entries]
    work = {entry: importlib.import_module(entry) for entry in entries}
    jobs = {entry: module.jobs(run) for entry, module in work.items()}
    with run.progress:
        every = run.progress.add_task("all", total=sum(map(len, jobs.values())))
        for entry, module in work.items():
            for label, job in jobs[entry]:
                run.progress.update(every, description=f"{entry}: {label}")
                job()
                run.progress.advance(every)
            run.write(entry, module.table(run))
    print(f"keras-probcert report {folder}")


def _chosen(parser, name, given, allowed):
    for value in given or ():
        if value not in allowed:
            parser.error(f"--{name} must be of {', '.join(allowed)}. Received: {value}")
    return [value for value in allowed if given is None or value in given]


if __name__ == "__main__":
    sys.exit(main())
