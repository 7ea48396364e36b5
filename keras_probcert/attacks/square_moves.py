"""What Square tries: squares in the L∞ ball, bumps in windows in L2 and L1."""

import numpy as np
from keras import ops

from keras_probcert.attacks import norms
from keras_probcert.attacks.l1_box import project_in_range


class Squares:
    """The L∞ search: stripes to start with, then squares of ±ε in each channel."""

    def __init__(self, attack, x):
        self.attack, self.x = attack, x
        _, self.height, self.width, self.channels = x.shape
        self.sides = attack.sides(self.height, self.width)
        # How many numbers a query takes.
        self.words = 2 + self.channels

    def start(self, noise):
        signs = _signs(noise.uniform((1, self.width, self.channels))[:, 0])
        return self._changed(signs)

    def propose(self, point, number, draw):
        side = _at(self.sides, number)
        inside = _Window(self, side, draw[:, :2]).inside
        signs = _signs(draw[:, None, None, 2:])
        return ops.where(inside, self._changed(signs), point)

    def _changed(self, signs):
        signs = ops.cast(signs, self.x.dtype)
        return self.attack.clamp(self.x + self.attack.epsilon * signs)


class Bumps:
    """The L2 and L1 searches: bumps in windows, scaled to fill the ball."""

    def __init__(self, attack, x):
        self.attack, self.x = attack, x
        _, self.height, self.width, self.channels = x.shape
        self.norm = norms.get(attack.norm)
        self.power = {"l2": 2, "l1": 4}[attack.norm]
        self.sides = attack.sides(self.height, self.width, least=3, odd=True)
        self.words = 5 + self.channels

    def start(self, noise):
        """A grid of bumps, five by five where the image can be cut so."""
        side = max(min(self.height, self.width) // 5, 1)
        bump = self._bump(side)
        down, tiles_down = _tiles(self.height, side)
        across, tiles_across = _tiles(self.width, side)
        draw = noise.uniform((tiles_down, tiles_across, 1 + self.channels))[:, 0]
        draw = _taken(_taken(draw, down // side, 1), across // side, 2)
        # What is left over at the borders stays as it is.
        inside = (down >= 0)[:, None] & (across >= 0)
        places = np.ix_(down % side, across % side)
        tile, turned = (
            ops.convert_to_tensor(np.where(inside, b[places], 0)[..., None], draw.dtype)
            for b in (bump, bump.T)
        )
        value = ops.where(draw[..., :1] < 0.5, tile, turned) * _signs(draw[..., 1:])
        return self._in_ball(ops.cast(value, self.x.dtype))

    def propose(self, point, number, draw):
        side, step = _at(self.sides, number), point - self.x
        window = _Window(self, side, draw[:, :2])
        other = _Window(self, side, draw[:, 2:4]).inside
        inside = window.inside
        either = ops.logical_or(inside, other)

        # What is there already, with a bump on it, takes up all that both windows
        # and the ball have left.
        old = ops.where(inside, step, 0.0)
        new = old / ops.maximum(self._length(old), 1e-12)
        new = new + self._placed(window, number, draw[:, 4]) * _signs(
            draw[:, None, None, 5:]
        )
        new = new / ops.maximum(self._length(new), 1e-12)
        total = self.norm.length(step)
        there = self._length(ops.where(either, step, 0.0))
        epsilon = self.attack.epsilon
        if self.attack.norm == "l2":
            free = ops.maximum(epsilon**2 - ops.square(total), 0.0)
            size = ops.sqrt(free / self.channels + ops.square(there))
        else:
            # As much as there is for all channels: the projection takes it back
            # where it is too much, from the smallest coordinates first.
            size = ops.maximum(epsilon - total, 0.0) + self.channels * there
        step = ops.where(inside, new * size, ops.where(other, 0.0, step))
        return self._in_ball(step)

    def _in_ball(self, step):
        """The point that `step` leads to, on the sphere or inside the ball."""
        x, epsilon = self.x, self.attack.epsilon
        if self.attack.norm == "l1":
            step = project_in_range(step, x, epsilon, self.attack.clip)
        else:
            step = epsilon * step / ops.maximum(self.norm.length(step), 1e-12)
        return self.attack.clamp(x + step)

    def _length(self, step):
        """The norm of each channel of each row, `(rows, 1, 1, channels)`."""
        if self.attack.norm == "l1":
            return ops.sum(ops.abs(step), axis=(1, 2), keepdims=True)
        return ops.sqrt(ops.sum(ops.square(step), axis=(1, 2), keepdims=True))

    def _placed(self, window, number, turn):
        """The bump of each row in its window, `(rows, height, width, 1)`."""
        sides, largest = np.unique(self.sides), self.sides.max()
        bumps = np.zeros((len(sides), largest, largest), "float32")
        for bump, side in zip(bumps, sides, strict=True):
            bump[:side, :side] = self._bump(side)
        kind = _at(np.searchsorted(sides, self.sides).astype("int32"), number)
        down = ops.clip(window.down, 0, largest - 1)
        across = ops.clip(window.across, 0, largest - 1)
        turned = turn[:, None, None] < 0.5
        index = largest * ops.where(turned, across, down)
        index = index + ops.where(turned, down, across)
        index = index + largest**2 * kind[:, None, None]
        table = ops.convert_to_tensor(bumps.reshape(-1), self.x.dtype)
        value = ops.take(table, index)[..., None]
        return ops.where(window.inside, value, 0.0)

    def _bump(self, side):
        """Two opposite pyramids side by side, of norm 1, `(side, side)`."""
        upper = self._pyramid(side // 2, side)
        bump = np.concatenate([upper, -self._pyramid(side - side // 2, side)])
        return bump / self._norm_of(bump)

    def _pyramid(self, height, width):
        """Concentric rectangles of falling height, of norm 1, `(height, width)`."""
        down, across = np.arange(height), np.arange(width)
        distance = np.maximum(
            np.abs(down - height // 2)[:, None], np.abs(across - width // 2)
        )
        layers = np.arange(1.0, max(height, width) // 2 + 2) ** -self.power
        value = np.cumsum(layers[::-1])[::-1][distance]
        return value / self._norm_of(value)

    def _norm_of(self, bump):
        order = {"l2": 2, "l1": 1}[self.attack.norm]
        return max(np.linalg.norm(bump.reshape(-1), order), 1e-12)


class _Window:
    """A square window at a random place in each row."""

    def __init__(self, search, side, draw):
        side = side[:, None, None]

        def offset(length, axis):
            """How far each place along an axis is behind the window's beginning."""
            free = ops.cast(length - side + 1, draw.dtype)
            begin = ops.cast(draw[:, axis, None, None] * free, "int32")
            begin = ops.minimum(begin, length - side)
            places = ops.arange(length, dtype="int32")
            return ops.reshape(places, (-1, 1) if axis == 0 else (1, -1)) - begin

        self.down = offset(search.height, 0)
        self.across = offset(search.width, 1)
        inside = (self.down >= 0) & (self.down < side)
        inside = inside & (self.across >= 0) & (self.across < side)
        self.inside = inside[..., None]


def _at(values, number):
    """`values[number]`, the last of them beyond their end, `(rows,)`."""
    number = ops.minimum(number, len(values) - 1)
    return ops.take(ops.convert_to_tensor(values), number)


def _taken(x, index, axis):
    """`x` at these places of an axis, the first where there is none."""
    return ops.take(x, np.maximum(index, 0), axis=axis)


def _signs(draw):
    """Random signs from uniform numbers."""
    return ops.where(draw < 0.5, ops.cast(-1.0, draw.dtype), ops.cast(1.0, draw.dtype))


def _tiles(length, side):
    """Where each place lies in a row of tiles in the middle, −1 outside of them."""
    count = length // side
    place = np.arange(length) - (length - count * side) // 2
    return np.where(place < count * side, np.maximum(place, -1), -1), count
