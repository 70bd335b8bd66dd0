"""Detectron2's mapper, whose errors name the image and what to do."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from PIL import ImageFile

from ..errors import RunError

_TRUNCATED = "copy the file again, or load what is there with INPUT.LOAD_TRUNCATED True"
_REMEDY = "alwa-d2 check-data --decode looks at all images"


class ImageError(RunError):
    """An image or its annotations that cannot be used in training or evaluation."""

    def __init__(self, message: str):
        # From a worker of a data loader PyTorch hands the error on with the worker's traceback
        # before it; the last line is what was raised.
        lines = message.splitlines()
        own = f"{type(self).__module__}.{type(self).__name__}: "
        is_handed_on = len(lines) > 1 and own in lines[-1]
        super().__init__(lines[-1].partition(own)[2] if is_handed_on else message)


class NamingMapper:
    """Calls a mapper of Detectron2's; what it raises becomes an :class:`ImageError` that names the
    file."""

    def __init__(self, mapper: Callable[[dict], dict | None], load_truncated: bool):
        """
        Args:
            mapper: takes a data set's record
            load_truncated: whether an image that is cut off is taken as far as it goes
        """
        self._mapper, self._load_truncated = mapper, load_truncated

    def __call__(self, record: dict) -> dict | None:
        # Pillow's switch, set here because a data loader's workers have their own.
        ImageFile.LOAD_TRUNCATED_IMAGES = self._load_truncated
        try:
            return self._mapper(record)
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            file = record.get("file_name", f"image id {record.get('image_id')}")
            remedy = _TRUNCATED if "truncated" in text else _REMEDY
            raise ImageError(f"{file}: {text}; {remedy}") from error


def build_mapper(cfg: CfgNode, is_train: bool) -> NamingMapper:
    """What the data loaders of a config call for each image."""
    return NamingMapper(DatasetMapper(cfg, is_train), cfg.INPUT.LOAD_TRUNCATED)
