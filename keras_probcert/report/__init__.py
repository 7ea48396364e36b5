"""Measured tables and curves beside published ones, as HTML and Markdown."""

from keras_probcert.report.report import write_report

__all__ = ["write_report"]
