"""Rows that are being certified: where their votes stand."""

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass
class Rows:
    """Rows under work, as arrays with one entry a row.

    Args:
        id: int64 `(rows,)`, the place of each in the data.
        x: float32 `(rows, …)`.
        y: int64 `(rows,)`, −1 where there is no label.
        seed: int32 `(rows, 2)`.
        votes: int32 `(rows, classes)`, so far.
        num_samples: int32 `(rows,)`, so far.
        losses: int32 `(rows,)`, workers that ended with the row in their hands.
    """

    id: np.ndarray
    x: np.ndarray
    y: np.ndarray
    seed: np.ndarray
    votes: np.ndarray
    num_samples: np.ndarray
    losses: np.ndarray

    def __len__(self):
        return len(self.id)

    def __getitem__(self, which):
        return Rows(**{name: value[which] for name, value in vars(self).items()})

    @staticmethod
    def join(parts):
        columns = [vars(part) for part in parts]
        return Rows(
            **{name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
        )


def digests(x):
    """The first 16 hexadecimal digits of each row's SHA-256: which input it was."""
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in x]
