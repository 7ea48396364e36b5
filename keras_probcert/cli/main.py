"""What `keras-probcert` starts."""

import argparse
import re
import sys
import traceback

from keras_probcert.cli import attack, certify, evaluate, export, plan, report

COMMANDS = {
    "certify": certify,
    "evaluate": evaluate,
    "attack": attack,
    "plan": plan,
    "export": export,
    "report": report,
}

EXIT_CODES = """\
exit codes:
  0  done
  1  done, and less was reached than --at-least demands
  2  the arguments, the model or the data are not as expected
  3  an error that is ours, with its traceback
  130  stopped from the keyboard
"""


def main(arguments=None):
    """Runs a command.

    Args:
        arguments: a list of strings; by default those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="keras-probcert",
        description="Certify, attack and serve Keras classifiers.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        first, _, rest = command.__doc__.partition("\n")
        sub = commands.add_parser(
            name,
            help=first,
            description=first,
            epilog=rest.strip() + "\n\n" + EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(sub)
    args = parser.parse_args(arguments)
    try:
        return COMMANDS[args.command].run(args)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        message = _with_flags(str(error), args)
        print(f"keras-probcert {args.command}: {message}", file=sys.stderr)
        return 2
    except Exception:
        # Python's own exit code would be 1, that of a demand that is not met.
        traceback.print_exc()
        return 3


def _with_flags(message, args):
    """A message of the library with arguments named as the command line does."""
    options = vars(args).keys() - {"command", "model", "data", "folder"}

    def flag(match):
        name = match[1]
        return f"`--{name.replace('_', '-')}`" if name in options else match[0]

    return re.sub(r"`(\w+)`", flag, message)
