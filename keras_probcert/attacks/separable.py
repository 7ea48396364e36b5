"""Linear maps of images that act on rows and on columns."""

from keras import ops


def separable(images, vertical, horizontal):
    """Each image times one matrix along its height and one along its width.

    Args:
        images: tensor, `(rows, height, width, channels)`.
        vertical: tensor, `(height, height)` for all rows or one each, `(rows, …)`.
        horizontal: likewise for the width.

    Returns:
        A tensor like `images`.
    """
    images = ops.einsum("...ai,...ijc->...ajc", vertical, images)
    return ops.einsum("...bj,...ajc->...abc", horizontal, images)
