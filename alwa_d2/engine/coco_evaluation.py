"""COCO average precision for COCO data as it comes from labelling tools."""

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..data.coco import COCOSet
from ..data.needs import needs_of
from ..detectron2_private import OpenCOCOEvaluator


class COCOEvaluator(OpenCOCOEvaluator):
    """Detectron2's COCO evaluator, for files that it would misread or stop at.

    It counts the images and objects that training counts: those of the data set's part, without
    boxes that are reversed, of zero area or outside of their image, and for a model with masks
    without objects that have none. Annotations may lack `iscrowd` and `area`, which pycocotools
    needs, and be numbered from 0, which it takes for a box that is not found. Per-class AP goes by
    the class names also where DATASETS.REGISTER orders the classes in another way than the
    categories' ids. AP is 0, not NaN, where nothing was detected of what is there. A file that is
    not COCO's raises ValueError.
    """

    def __init__(self, dataset_name, *args, **kwargs):
        metadata = MetadataCatalog.get(dataset_name)
        source = metadata.get("source")
        path = metadata.get("json_file")
        if source is None and path is not None:
            source = _of_file(dataset_name, path)
        truth = None if source is None else source.truth()
        super().__init__(dataset_name, *args, truth=truth, **kwargs)
        if truth is None:  # Detectron2 has made a file from another format
            self.set_truth(_of_file(dataset_name, metadata.json_file).truth())
        needs = needs_of(dataset_name)
        tasks = {"segm": needs.masks, "keypoints": needs.keypoints}
        self.tasks_of_nothing = ["bbox", *(task for task, wanted in tasks.items() if wanted)]


def _of_file(name: str, path: str) -> COCOSet:
    return COCOSet(name, PathManager.get_local_path(path), images="", is_own=False)
