"""How often a model withstands an attack."""

import inspect
import time

import keras
import numpy as np
from keras import ops

from keras_probcert import models
from keras_probcert.attacks import norms
from keras_probcert.attacks.evaluation import AttackEvaluation
from keras_probcert.certifiers import CertifiedPredictor
from keras_probcert.certifiers.voting import classes_from_outputs
from keras_probcert.perturbations import Perturbation
from keras_probcert.seeds import row_seeds
from keras_probcert.validation import (
    check_bool,
    check_floating,
    check_fraction,
    check_inputs,
    check_integer,
    check_labels,
    check_number,
)


def evaluate_attack(
    model,
    attack,
    x,
    y=None,
    seed=None,
    batch_size=250,
    verbose="auto",
    epsilon=None,
    norm="linf",
    clip=None,
    from_logits=None,
    known_seed=False,
    level=0.95,
    clean=None,
):
    """Attacks labelled inputs and says how many a model still gets right.

    A `CertifiedPredictor` is judged by its full test, at `x` and at `x_adv`, on
    noise that the attack has not seen: its prediction is the majority vote, and
    *denied* certificates (of the rows that are right and certified at `x`, those that
    have none at `x_adv`) and *forged* ones (of all rows, those for which a wrong class
    is certified at `x_adv`) are counted apart. Where a row's
    agreement is close to 1 − kappa the noise alone denies some; attacking with
    `lambda model, x, y: x` says how many.

    Args:
        model: a Keras classifier or a `CertifiedPredictor`.
        attack: a callable of `(model, x, y)` to `x_adv`: an `Attack`, or another
            library's in a lambda. It is handed NumPy arrays, `y` as class indices,
            and of a `CertifiedPredictor` the base model, unless its attribute
            `takes_predictor` is true. An argument `seed` of the callable is handed
            one int32 pair a row, `(rows, 2)`.
        x: float array `(rows, …)`, or without `y` a dataset or an iterable of
            batches `(x, y)`.
        y: class indices `(rows,)`, or one-hot `(rows, classes)`.
        seed: `None` (default) for fresh noise, or an int that makes the run
            repeatable, whatever the batches are.
        batch_size: the most rows that are handed to the attack together, 250 by
            default.
        verbose: Keras' progress bar: "auto", 0, 1 or 2.
        epsilon, norm, clip: where given, each adversarial example must lie in the
            ball of radius `epsilon` around its input in `norm` ("linf" by default,
            "l2", "l1") and in the range `clip`, to rounding. The range is by default
            that of the predictor's perturbation, if `model` is one.
        from_logits: as in `Attack`, for a model whose last layer does not tell.
        known_seed: whether the predictor votes with the noise whose seed the attack
            was handed: the worst case of a seed that leaks. `False` by default. A
            `CertificateAttack` must have been made with the same.
        level: the confidence level of the intervals, in (0, 1); 0.95 by default.
        clean: an `AttackEvaluation` of the same model and rows, whose judgement at
            `x` is taken over; `None` (default) judges anew.

    Returns:
        An `AttackEvaluation`.

    Raises:
        ValueError: if an argument is out of its range, `x` or `y` is not what the
            model takes, or the attack returns another shape, a value that is not
            finite, or a point outside the stated ball or range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_probcert.attacks import PGD
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x, y = np.random.rand(20, 4).astype("float32"), np.arange(20) % 3
    >>> result = evaluate_attack(model, PGD(epsilon=0.1), x, y, seed=0, verbose=0)
    >>> result.defence_success_rate.rate <= result.standard_accuracy.rate
    True
    >>> result.x_adv.shape, result.forward_passes
    ((20, 4), 260)

    Reference:

    - Table 8 of "Towards Certified Probabilistic Robustness with High Accuracy"
      (arXiv 2309.00879), defence success rate.
    """
    judge = _Judge(model, from_logits)
    batch_size = check_integer("batch_size", batch_size)
    level = check_fraction("level", level)
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(
            f"`verbose` must be 'auto', 0, 1 or 2. Received: verbose={verbose!r}"
        )
    if epsilon is not None:
        check_number("epsilon", epsilon)
    norms.get(norm)
    clip = Perturbation(clip).clip
    if clean is not None and not isinstance(clean, AttackEvaluation):
        raise ValueError(
            f"`clean` must be an AttackEvaluation or None. Received: clean={clean!r}"
        )
    if clip is None and judge.certifies:
        clip = model.perturbation.clip
    search_seed, clean_seed, seed = _three_seeds(seed)
    parameters = _parameters(attack)
    if check_bool("known_seed", known_seed):
        if not judge.certifies or "seed" not in parameters:
            raise ValueError(
                "`known_seed` must be False unless `model` is a CertifiedPredictor "
                "and `attack` takes a `seed`. Received: known_seed=True"
            )
        seed = search_seed
    if getattr(attack, "known_seed", known_seed) != known_seed:
        raise ValueError(
            "`known_seed` must be what `attack` was made with. Received: "
            f"known_seed={known_seed}, and an attack of known_seed={attack.known_seed}"
        )
    victim = model
    if judge.certifies and not getattr(attack, "takes_predictor", False):
        victim = model.base_model

    bar = keras.utils.Progbar(
        None if y is None or not hasattr(x, "__len__") else len(x),
        verbose=1 if verbose == "auto" else verbose,
        # Of all rows so far, not a batch's.
        stateful_metrics=["defence_success_rate"],
        unit_name="row",
    )
    results, seconds, start, defended = [], 0.0, 0, 0
    for some_x, some_y in batches(x, y, batch_size):
        rows = len(some_x)
        some_y = judge.check(some_x, some_y, clip)
        if clean is None:
            before = judge(some_x, row_seeds(clean_seed, rows, start))
        else:
            before = judge.take_over(clean, slice(start, start + rows), some_y)
        known = {
            "seed": row_seeds(search_seed, rows, start),
            "from_logits": from_logits,
        }
        began = time.perf_counter()
        known = {name: value for name, value in known.items() if name in parameters}
        found = _as_numpy(attack(victim, some_x, some_y, **known))
        seconds += time.perf_counter() - began
        _check_found(found, some_x, epsilon, norm, clip)
        if clip is not None:
            # It may be beyond by a rounding error.
            found = np.clip(found, *np.float32(clip))
        found = found.astype(some_x.dtype)
        after = judge(found, row_seeds(seed, rows, start))
        results.append((found, some_y, before[0], after[0], before[1], after[1]))
        start += rows
        defended += (after[0] == some_y).sum()
        bar.add(rows, [("defence_success_rate", defended / start)])
    if clean is not None and len(clean.y) != start:
        raise ValueError(
            "`clean` must be an evaluation of the same rows. Received: one of "
            f"{len(clean.y)} rows, not {start}"
        )
    if bar.target is None:
        bar.target = start
        bar.update(start, finalize=True)
    passes = getattr(attack, "passes", None) or (None, None)
    return AttackEvaluation(
        *(
            None if column[0] is None else np.concatenate(column)
            for column in zip(*results, strict=True)
        ),
        seconds,
        *(None if each is None else each * start for each in passes),
        level,
    )


class _Judge:
    """Labels and certificates of a model of either kind."""

    def __init__(self, model, from_logits):
        self.certifies = isinstance(model, CertifiedPredictor)
        self.model = model
        self.base = model.base_model if self.certifies else model
        models.check_classifier(self.base)
        if not self.certifies:
            self.logits = models.logits(model, from_logits)

    def check(self, x, y, clip):
        """`y` as class indices, and both checked."""
        if self.certifies:
            clip = self.model.perturbation.clip
        check_inputs(x, clip, models.row_shape(self.base))
        models.build(self.base, x.shape)
        classes = max(2, models.output_units(self.base, x.shape[1:]))
        return check_labels(y, len(x), classes)

    def __call__(self, x, seeds):
        """Labels, −1 for none, and what is certified, `None` by a plain model."""
        if self.certifies:
            result = self.model.predict(x, verbose=0, seed=seeds)
            return np.asarray(result["label"]), np.asarray(result["certified"])
        logits = self.logits(ops.convert_to_tensor(x))
        label = ops.convert_to_numpy(classes_from_outputs(logits))
        return np.where(label == logits.shape[1], -1, label), None

    def take_over(self, clean, rows, y):
        """The same for some rows of `x` from an evaluation of them."""
        certified = clean.clean_certified
        if self.certifies != (certified is not None) or not np.array_equal(
            clean.y[rows], y
        ):
            raise ValueError(
                "`clean` must be an evaluation of the same model and rows. "
                f"Received: clean={clean!r}"
            )
        return clean.clean_label[rows], certified[rows] if self.certifies else None


def _three_seeds(seed):
    """Independent seeds: of the search, of the votes at x, of those at x_adv."""
    if seed is not None:
        seed = check_integer("seed", seed, least=0)
    states = np.random.SeedSequence(seed).generate_state(3, np.uint64)
    return [int(state) for state in states]


def _parameters(attack):
    """The names of what a callable takes."""
    try:
        return inspect.signature(attack).parameters
    except (TypeError, ValueError):  # Not a callable, or one without a signature.
        if not callable(attack):
            raise ValueError(
                "`attack` must be a callable of (model, x, y). "
                f"Received: attack={attack!r}"
            ) from None
        return {}


def batches(x, y, batch_size):
    """Pairs of arrays of at most `batch_size` rows."""
    if y is None and hasattr(x, "__array__"):
        raise ValueError("`y` must be given beside an array `x`. Received: y=None")
    if (
        y is not None
        and not hasattr(x, "__array__")
        and not isinstance(x, (list, tuple))
    ):
        raise ValueError("`y` must not be given beside a dataset")
    empty = True
    for batch in [(x, y)] if y is not None else x:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise ValueError(
                "`x` must give batches (x, y) where `y` is not given. "
                f"Received: a batch of type {type(batch).__name__}"
            )
        some_x, some_y = _as_numpy(batch[0]), _as_numpy(batch[1])
        check_inputs(some_x)
        if some_y.shape[:1] != some_x.shape[:1]:
            raise ValueError(
                f"`y` must hold one label for each of the {len(some_x)} rows. "
                f"Received: shape={some_y.shape}"
            )
        for i in range(0, len(some_x), batch_size):
            yield some_x[i : i + batch_size], some_y[i : i + batch_size]
        empty = False
    if empty:
        raise ValueError("`x` must hold at least one row. Received: an empty dataset")


def _as_numpy(x):
    if isinstance(x, np.ndarray):
        return x
    return ops.convert_to_numpy(x) if hasattr(x, "dtype") else np.asarray(x)


def _precision(dtype):
    """How far 1 is from the next number; NumPy's `finfo` does not know bfloat16."""
    one = np.ones((), dtype)
    return float(np.nextafter(one, 2 * one)) - 1


def _check_found(found, x, epsilon, norm, clip):
    """Checks what an attack returned against what was promised."""
    if found.shape != x.shape:
        raise ValueError(
            "`attack` must return an array of the shape of `x`, "
            f"{x.shape}. Received: shape={found.shape}"
        )
    check_floating("attack(model, x, y)", found)
    if not np.isfinite(found).all():
        raise ValueError(
            "`attack` must return finite values. Received: a NaN or infinite value"
        )
    coarse = max(_precision(a.dtype) for a in (x, found))
    ulps = coarse * np.maximum(np.abs(x), np.abs(found)).astype("float64")
    if epsilon is not None:
        step = found.astype("float64") - x
        length, rounding = (norms.lengths(a, norm) for a in (step, ulps))
        if (length > epsilon + 1e-6 + rounding).any():
            raise ValueError(
                f"`attack` must stay within epsilon={epsilon} in {norm}. "
                f"Received: a point at {length.max()}"
            )
    if clip is not None:
        beyond = np.maximum(clip[0] - found.astype("float64"), found - clip[1])
        if (beyond > 1e-6 + ulps).any():
            raise ValueError(
                f"`attack` must stay in the valid input range clip={clip}. "
                f"Received: values from {found.min()} to {found.max()}"
            )
