"""Training methods: Keras models around a base model."""

from keras_probcert.training.consistency import ConsistencyModel
from keras_probcert.training.corruption import CorruptionModel
from keras_probcert.training.da import DAModel
from keras_probcert.training.erm import ERMModel
from keras_probcert.training.ibp import IBPModel, initialize_for_ibp
from keras_probcert.training.kl_pgd import KLPGDModel
from keras_probcert.training.mart import MARTModel
from keras_probcert.training.pgdt import PGDTModel
from keras_probcert.training.prl import PRLModel
from keras_probcert.training.rs import RSModel
from keras_probcert.training.schedules import LinearRamp, Schedule, SmoothedRamp
from keras_probcert.training.smoothadv import SmoothAdvModel
from keras_probcert.training.smoothmix import SmoothMixModel
from keras_probcert.training.trades import TRADESModel
from keras_probcert.training.training_method import TrainingMethod
from keras_probcert.training.variance_minimizing import VarianceMinimizingModel

METHODS = {
    "erm": ERMModel,
    "da": DAModel,
    "pgdt": PGDTModel,
    "trades": TRADESModel,
    "mart": MARTModel,
    "rs": RSModel,
    "ibp": IBPModel,
    "prl": PRLModel,
    "variance_minimizing": VarianceMinimizingModel,
    "consistency": ConsistencyModel,
    "smoothadv": SmoothAdvModel,
    "smoothmix": SmoothMixModel,
    "kl_pgd": KLPGDModel,
    "corruption": CorruptionModel,
}


def get(name):
    """The class of a training method.

    Args:
        name: a key of `METHODS`: one of the nine of the paper's Table 1 (`"erm"`,
            `"da"`, `"pgdt"`, `"trades"`, `"mart"`, `"rs"`, `"ibp"`, `"prl"`,
            `"variance_minimizing"`), `"consistency"`, `"smoothadv"`,
            `"smoothmix"`, `"kl_pgd"` or `"corruption"`.

    Returns:
        A subclass of `TrainingMethod`, to be called with a base model.

    Raises:
        ValueError: if there is no method of that name.

    Example:

    >>> get("trades").__name__
    'TRADESModel'
    """
    if name not in METHODS:
        raise ValueError(f"`name` must be one of {list(METHODS)}. Received: {name!r}")
    return METHODS[name]


__all__ = [
    "METHODS",
    "ConsistencyModel",
    "CorruptionModel",
    "DAModel",
    "ERMModel",
    "IBPModel",
    "KLPGDModel",
    "LinearRamp",
    "MARTModel",
    "PGDTModel",
    "PRLModel",
    "RSModel",
    "Schedule",
    "SmoothAdvModel",
    "SmoothMixModel",
    "SmoothedRamp",
    "TRADESModel",
    "TrainingMethod",
    "VarianceMinimizingModel",
    "get",
    "initialize_for_ibp",
]
