"""Whether our values stand in the paper's order, in sentences."""

from dataclasses import replace
from itertools import combinations

from keras_probcert.report.tables import best


def compare(column):
    """Sentences on one column, or none where fewer than two rows have both values.

    Kendall's τ-b over the rows that have both values, the first of each, what
    overlaps with our first, pairs that stand the other way round beyond their
    intervals, and how many of the paper's values lie inside our intervals.

    Args:
        column: a `tables.Column`.

    Returns:
        A list of sentences.

    Reference:

    - Kendall, The treatment of ties in ranking problems, Biometrika 1945 (τ-b).
    """
    both = {
        row: m
        for row, m in column.measurements.items()
        if m.value is not None and m.paper is not None
    }
    if len(both) < 2:
        return []
    sentences = [_order(both)]
    sentences += _firsts(column, both)
    sentences += _reversed(both)
    sentences += _inside(both)
    return sentences


def _order(both):
    from scipy.stats import kendalltau

    pairs = list(combinations(both.values(), 2))
    signs = [_sign(a.value - b.value) * _sign(a.paper - b.paper) for a, b in pairs]
    alike, opposite, tied = (signs.count(sign) for sign in (1, -1, 0))
    ours, papers = zip(*((m.value, m.paper) for m in both.values()), strict=True)
    if len(set(ours)) == 1 or len(set(papers)) == 1:
        whose = "our" if len(set(ours)) == 1 else "the paper's"
        return f"No order to compare: {whose} {len(both)} values are equal."
    statistic = kendalltau(ours, papers).statistic
    tau = f"Kendall's τ = {statistic:.2f}".replace("-", "−")
    if alike == len(pairs):
        return f"Our order of the {len(both)} rows is the paper's ({tau})."
    counts = f"{alike} of {len(pairs)} pairs of rows stand in the paper's order"
    if opposite:
        counts += f", {opposite} the other way round"
    if tied:
        counts += f", {tied} tied here or there"
    differs = (
        "differs from the paper's" if opposite else "never contradicts the paper's"
    )
    return f"Our order {differs}: {counts} ({tau})."


def _firsts(column, both):
    among = replace(column, measurements=both)
    ours, papers = best(among), best(among, lambda m: m.paper)
    if not ours or not papers:
        return []
    if ours == papers:
        sentences = [f"First in both: {_names(ours)}."]
    else:
        sentences = [
            f"First here: {_names(ours)}; first in the paper: {_names(papers)}."
        ]
    first = both[ours[0]]
    others = {row: m for row, m in both.items() if row not in ours}
    unknown = [row for row, m in others.items() if not _known(m) or not _known(first)]
    near = [r for r, m in others.items() if r not in unknown and _overlap(m, first)]
    if near:
        sentences.append(
            f"Not told apart from our first, as intervals overlap: {_names(near)}."
        )
    elif others and not unknown:
        sentences.append("No other interval overlaps with our first's.")
    if unknown:
        sentences.append(f"Without an interval to compare: {_names(unknown)}.")
    return sentences


def _reversed(both):
    """Pairs in the other order than the paper's, their intervals apart."""
    found = [
        f"{a} above {b}" if both[a].value > both[b].value else f"{b} above {a}"
        for a, b in combinations(both, 2)
        if _sign(both[a].value - both[b].value) * _sign(both[a].paper - both[b].paper)
        < 0
        and _known(both[a])
        and _known(both[b])
        and not _overlap(both[a], both[b])
    ]
    if not found:
        return []
    return [f"Against the paper's order, and intervals apart: {_names(found)}."]


def _inside(both):
    known = [m for m in both.values() if _known(m)]
    if not known:
        return []
    inside = sum(m.low <= m.paper <= m.high for m in known)
    return [
        f"The paper's value lies inside our interval in {inside} of {len(known)} rows."
    ]


def _known(m):
    return m.low is not None and m.high is not None


def _overlap(a, b):
    return a.low <= b.high and b.low <= a.high


def _sign(number):
    return int(number > 0) - int(number < 0)


def _names(names):
    return ", ".join(names)
