"""Deny: to have no class certified."""

from keras_probcert.attacks import goals
from keras_probcert.attacks.smoothed_pgd import SmoothedPGD


class Deny(SmoothedPGD):
    r"""Takes a `CertifiedPredictor`'s certificate away, whatever the label.

    Maximizes the variance of the predictions over the vicinity: each step lowers
    the largest of the mean probabilities over m fresh draws,

    \[\max_c \frac{1}{m} \sum_{i=1}^{m} p_c(x' + \delta_i),\]

    and what comes back is the point where the most frequent class has the fewest
    votes. For a certificate to be lost somewhat more than a share kappa of them must
    be for other classes. See `CertificateAttack` for the threat model.

    Args:
        num_samples: m, the draws at each step, at least 1; 20 by default.
        steps: the number of steps of each search, at least 1; 100 by default.
        restarts: the number of searches, at least 1; 5 by default.
        epsilon, norm, check_samples, known_seed, step_size: as in `SmoothedPGD`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_probcert import CertifiedPredictor, LInf
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> attack = Deny(num_samples=5, steps=10, restarts=2)
    >>> x_adv = attack(certified, x, y=[0, 1, 2, 0, 1], seed=0)
    """

    goal = goals.Denial()
