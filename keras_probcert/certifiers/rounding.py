"""From float64 to float32, on the side where nothing is promised too much."""

import numpy as np


def rounded_down(values):
    """float64 `values` as float32 that are no larger."""
    found = values.astype("float32")
    return np.where(found > values, np.nextafter(found, np.float32(-np.inf)), found)


def rounded_up(values):
    """float64 `values` as float32 that are no smaller."""
    found = values.astype("float32")
    return np.where(found < values, np.nextafter(found, np.float32(np.inf)), found)
