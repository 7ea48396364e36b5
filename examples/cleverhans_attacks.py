"""cleverhans' Carlini-Wagner and SPSA attacks on Keras 3.

Both are written for Keras 2's optimizers and fail with Keras 3's. Here cleverhans'
own code runs with an optimizer that answers as Keras 2's did. Both are functions of
`(model, x, y)`, for `keras_probcert.attacks.evaluate_attack`.
"""

import keras
import numpy as np
import tensorflow as tf
from cleverhans.tf2.attacks import carlini_wagner_l2, spsa

from keras_probcert import models


class Keras2Adam:
    """Adam whose `variables` are a method and hold its state alone."""

    def __init__(self, learning_rate):
        self.adam = keras.optimizers.Adam(learning_rate)

    def variables(self):
        """The state, which the attack sets to zero to begin anew."""
        rate = self.adam._learning_rate
        return [v.value for v in self.adam.variables if v is not rate]

    def apply_gradients(self, gradients_and_variables):
        self.adam.apply_gradients(gradients_and_variables)


class SPSAAdam(spsa.SPSAAdam):
    """cleverhans' optimizer without Keras' constructor, which takes other arguments."""

    lr, beta_1, beta_2, epsilon = 0.01, 0.9, 0.999, 1e-7

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, delta=0.01, num_samples=128):
        for name, value in (
            ("_delta", delta),
            ("_num_samples", num_samples // 2),
            ("_num_iters", 1),
        ):
            object.__setattr__(self, name, value)


class CleverHansCW:
    """cleverhans' `CarliniWagnerL2`, away from the class that the model predicts."""

    def __init__(self, clip=(0.0, 1.0), learning_rate=5e-3, **arguments):
        self.clip = clip
        self.learning_rate = learning_rate
        self.arguments = arguments

    def __call__(self, model, x, y):
        attack = carlini_wagner_l2.CarliniWagnerL2(
            models.logits(model),
            clip_min=self.clip[0],
            clip_max=self.clip[1],
            batch_size=len(x),
            **self.arguments,
        )
        attack.optimizer = Keras2Adam(self.learning_rate)
        found = attack.attack(x)
        # What the model has wrong already stays as it is.
        right = model.predict(x, verbose=0).argmax(axis=1) == y
        return np.where(right.reshape(-1, *[1] * (x.ndim - 1)), found, x)


class CleverHansSPSA:
    """cleverhans' `spsa`, image by image, as it takes batches of one."""

    def __init__(self, epsilon, steps=100, num_samples=128, clip=(0.0, 1.0)):
        self.epsilon = epsilon
        self.steps = steps
        self.num_samples = num_samples
        self.clip = clip

    def __call__(self, model, x, y):
        logits = models.logits(model)
        classes = logits(x[:1]).shape[1]

        def loss(x, label):
            return -spsa.margin_logit_loss(logits(x), label, nb_classes=classes)

        @tf.function
        def attack(image, label):
            return spsa.projected_optimization(
                loss,
                image,
                label,
                self.epsilon,
                self.steps,
                SPSAAdam(num_samples=self.num_samples),
                *self.clip,
            )

        y = tf.convert_to_tensor(y, "int32")
        found = [attack(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
        return np.concatenate(found)
