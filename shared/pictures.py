"""What a picture file is, judged without TensorFlow: format, size, whether it is whole."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PictureInfo:
    """A picture as it will be seen, after its orientation is applied."""

    width: int
    height: int
    format: str
