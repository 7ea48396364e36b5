"""Certificates of whole data sets, on one machine or on a cluster."""

from keras_probcert.distributed.certify_dataset import certify_dataset
from keras_probcert.distributed.store import load_certificates

__all__ = ["certify_dataset", "load_certificates"]
