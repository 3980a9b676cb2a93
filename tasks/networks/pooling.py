"""Max-pooling written out, for functions that XLA compiles for a CPU."""

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
