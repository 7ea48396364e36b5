"""What can become of a row."""

import enum


class Decision(enum.IntEnum):
    """The decision on a row, as it stands in results.

    Only `ROBUST` is a certificate. `UNDECIDED` is 0, so that what was never
    written is not certified.

    Example:

    >>> Decision(1).name
    'ROBUST'
    """

    UNDECIDED = 0
    """The budget of samples was spent before either boundary was crossed."""

    ROBUST = 1
    """The agreement is above 1 − kappa."""

    NOT_ROBUST = 2
    """The agreement is below 1 − kappa."""

    REFUSED = 3
    """The input was NaN, infinite or outside the valid range: nothing was asked."""

    FUTILE = 4
    """No number of further votes, up to the horizon, could certify any more."""
