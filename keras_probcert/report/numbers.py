"""Measured and published values as text."""

SUFFIX = {"percent": "%", "seconds": "s", "ratio": "", "radius": ""}
# Where a value is rounded, by unit; where none is named, to three digits.
_DECIMALS = {"percent": 1, "radius": 3}


def value(number, unit):
    """A measured value: percent without its sign."""
    if unit in _DECIMALS:
        scaled = number * _scale(unit)
        return _sign(f"{scaled:.{_DECIMALS[unit]}f}")
    return _sign(_digits(number, 3))


def interval(low, high, unit):
    """`[low, high]`."""
    return f"[{value(low, unit)}, {value(high, unit)}]"


def published(number, unit):
    """A value of the paper, with up to five digits."""
    text = _digits(number * _scale(unit), 5)
    decimals = max(len(text.partition(".")[2]), _DECIMALS.get(unit, 0))
    return _sign(text if "e" in text else f"{float(text):.{decimals}f}")


def difference(number, paper, unit):
    """Ours minus the paper's, with its sign."""
    change = (number - paper) * _scale(unit)
    if unit in _DECIMALS:
        decimals = len(published(paper, unit).partition(".")[2])
        text = f"{change:+.{decimals}f}"
    else:
        text = f"{'+' if change > 0 else ''}{_digits(change, 3)}"
    return "±0" if float(text) == 0 else _sign(text)


def plain(number):
    """A number of an axis or a setting, with all its digits."""
    return _sign(f"{number:.10g}")


def duration(seconds):
    """`2 h 5 min`, `3 min 20 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _scale(unit):
    return 100 if unit == "percent" else 1


def _digits(number, most):
    """At most so many digits, but for those before the point."""
    text = f"{number:.{most}g}"
    return f"{number:.0f}" if "e+" in text else text


def _sign(text):
    return text.replace("-", "−")
