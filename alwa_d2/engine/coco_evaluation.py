"""COCO average precision for COCO data as it comes from labelling tools."""

import contextlib
import io
import os

from detectron2.data import MetadataCatalog

from ..data.coco import check_file
from ..detectron2_private import OpenCOCOEvaluator


class COCOEvaluator(OpenCOCOEvaluator):
    """Detectron2's COCO evaluator, for files that it would misread or stop at.

    Boxes of zero area are left out, as in training. Annotations may lack `iscrowd` and `area`,
    which pycocotools needs, and be numbered from 0: pycocotools takes the box 0 for one that is not
    found. Per-class AP goes by the class names also where DATASETS.REGISTER orders the classes in
    another way than the categories' ids. A file that is not COCO's raises ValueError.
    """

    def __init__(self, dataset_name, *args, **kwargs):
        path = MetadataCatalog.get(dataset_name).get("json_file")
        if path is not None and os.path.isfile(path):  # Detectron2 makes it for other formats
            check_file(path)
        super().__init__(dataset_name, *args, **kwargs)
        dataset = self.truth.dataset
        dataset.setdefault("info", {})  # pycocotools copies it without looking
        if not self.has_truth:
            return
        images = self.truth.imgs
        kept = [a for a in dataset["annotations"] if a["image_id"] in images]
        kept = [a for a in kept if a["bbox"][2] > 0 and a["bbox"][3] > 0]
        for number, annotation in enumerate(kept, 1):
            annotation["id"] = number
            annotation.setdefault("iscrowd", 0)
            annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        dataset["annotations"] = kept
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            self.truth.createIndex()
