"""Whether our values stand in the paper's order, in sentences."""

from dataclasses import replace
from itertools import combinations

from keras_probcert.report.tables import best

TOLD_APART = (
    "Rows are told apart by McNemar's exact test on the same inputs, with Holm's "
    "correction, at 5 % a column."
)


def compare(column):
    """Sentences on one column, or none where fewer than two rows have both values.

    Kendall's τ-b over the rows that have both values, the first of each, what is not
    told apart from our first, pairs that are told apart and stand the other way round,
    and how many of the paper's values lie inside our intervals.

    Rows are told apart by McNemar's exact test where the outcomes on each input are
    known, as all rows share the inputs: with Holm's correction, so that with
    probability at least 0.95 no two rows that are as good are told apart. Otherwise
    it is only said whose intervals overlap, which is no test of the difference.

    Args:
        column: a `tables.Column`.

    Returns:
        A list of sentences.

    Reference:

    - Kendall, The treatment of ties in ranking problems, Biometrika 1945 (τ-b).
    - Holm, A simple sequentially rejective multiple test procedure, Scandinavian
      Journal of Statistics 1979.
    - McNemar, Note on the sampling error of the difference between correlated
      proportions or percentages, Psychometrika 1947.
    """
    both = {
        row: m
        for row, m in column.measurements.items()
        if m.value is not None and m.paper is not None
    }
    if len(both) < 2:
        return []
    sentences = [_order(both)]
    lengths = {len(m.outcomes or ()) for m in both.values()}
    paired = len(lengths) == 1 and lengths != {0}
    apart = _apart_in_pairs(both) if paired else _apart_by_intervals(both)
    sentences += _firsts(column, both, apart, paired)
    sentences += _reversed(both, apart, paired)
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


def _firsts(column, both, apart, paired):
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
    near = [r for r in others if r not in unknown and not apart(r, ours[0])]
    if near and paired:
        sentences.append(f"Not told apart from our first: {_names(near)}.")
    elif near:
        sentences.append(f"Intervals that overlap with our first's: {_names(near)}.")
    elif others and not unknown:
        sentences.append(
            "All others are told apart from our first."
            if paired
            else "No other interval overlaps with our first's."
        )
    if unknown:
        sentences.append(f"Without an interval to compare: {_names(unknown)}.")
    return sentences


def _reversed(both, apart, paired):
    """Pairs in the other order than the paper's that are told apart."""
    found = [
        f"{a} above {b}" if both[a].value > both[b].value else f"{b} above {a}"
        for a, b in combinations(both, 2)
        if _sign(both[a].value - both[b].value) * _sign(both[a].paper - both[b].paper)
        < 0
        and _known(both[a])
        and _known(both[b])
        and apart(a, b)
    ]
    if not found:
        return []
    how = "told apart" if paired else "intervals apart"
    return [f"Against the paper's order, and {how}: {_names(found)}."]


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


def _apart_by_intervals(both):
    """A function of two rows: whether their intervals do not overlap."""

    def apart(a, b):
        return both[a].low > both[b].high or both[b].low > both[a].high

    return apart


def _apart_in_pairs(both):
    """A function of two rows: whether they differ by more than chance lets them."""
    from scipy.stats import binomtest

    values = {}
    for a, b in combinations(both, 2):
        # Inputs on which both succeed or both fail say nothing of the difference.
        pairs = zip(both[a].outcomes, both[b].outcomes, strict=True)
        won = [first for first, second in pairs if first != second]
        value = binomtest(sum(won), len(won)).pvalue if won else 1.0
        values[frozenset((a, b))] = value
    found, left = set(), len(values)
    for pair in sorted(values, key=values.get):
        if values[pair] * left >= 0.05:
            break
        found.add(pair)
        left -= 1
    return lambda a, b: frozenset((a, b)) in found


def _sign(number):
    return int(number > 0) - int(number < 0)


def _names(names):
    return ", ".join(names)
