"""Poolings that Keras has not: max-pooling written out for XLA on a CPU, and an average without a grid."""

from typing import Any

import keras
from keras import ops


class BlockMaxPooling(keras.layers.MaxPooling2D):
    """The maxima of blocks of 2 x 2 cells: (batch, height, width, channels) -> the same with half the height and width.

    Value and gradient are those of max-pooling; of equal cells the first takes the gradient. XLA compiles the gradient
    of its own pooling into a loop that walks from window to window, which takes a tenth to a fifth of the processor
    time of VGG's whole gradient. This form is comparisons that it fuses with their neighbours. Without XLA it is the
    slower one.
    """

    @staticmethod
    def suits(layer: keras.Layer) -> bool:
        """Whether this is a max-pooling of such blocks."""
        return (
            isinstance(layer, keras.layers.MaxPooling2D)
            and tuple(layer.pool_size) == tuple(layer.strides) == (2, 2)
            and layer.padding == "valid"
        )

    def call(self, inputs: Any) -> Any:
        height, width = (side // 2 * 2 for side in ops.shape(inputs)[1:3])  # an odd last row is in no block
        above, below = inputs[:, :height:2, :width], inputs[:, 1:height:2, :width]
        return ops.maximum(
            ops.maximum(above[:, :, ::2], above[:, :, 1::2]), ops.maximum(below[:, :, ::2], below[:, :, 1::2])
        )


class BinomialPooling(keras.layers.AveragePooling2D):
    """An average over 3 x 3 cells in steps of 2, the middle ones weighing more: 1 2 1 along each side, over 4.

    Equal weights would count every other row and column twice, since the windows overlap there; a picture painted
    through them has a grid of that period. With these all cells count alike. (batch, height, width, channels) -> the
    same with (height - 1) // 2 and (width - 1) // 2.
    """

    def call(self, inputs: Any) -> Any:
        smooth = ops.average_pool(inputs, 2, strides=1, padding="valid")
        return ops.average_pool(smooth, 2, strides=2, padding="valid")
