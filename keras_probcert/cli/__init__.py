"""The command line, `keras-probcert`."""

from keras_probcert.cli.main import main

__all__ = ["main"]
