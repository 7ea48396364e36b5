"""Arguments of a constructor that stay what they were."""

import inspect


class FixedArguments:
    """Refuses to change what an object was made with.

    What was compiled for the old value would go on, and answer for it.
    """

    # Attributes that an argument of another name became.
    _fixed = ()

    def __setattr__(self, name, value):
        fixed = name in self._fixed or name in _arguments(type(self))
        if fixed and name in vars(self):
            raise AttributeError(
                f"`{name}` of a {type(self).__name__} cannot be changed: make another. "
                f"Received: {name}={value!r}"
            )
        super().__setattr__(name, value)


def _arguments(kind):
    return inspect.signature(kind.__init__).parameters
