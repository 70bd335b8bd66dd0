"""COCO average precision for COCO data as it comes from labelling tools."""

import contextlib
import io

from detectron2.evaluation import COCOEvaluator as _COCOEvaluator


class COCOEvaluator(_COCOEvaluator):
    """Detectron2's COCO evaluator, for files that it would misread or stop at.

    Boxes of zero area are left out, as in training. Annotations may lack `iscrowd` and `area`,
    which pycocotools needs. Per-class AP goes by the class names also where DATASETS.REGISTER
    orders the classes in another way than the categories' ids.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        dataset = self._coco_api.dataset
        dataset.setdefault("info", {})  # pycocotools copies it without looking
        if not self._do_evaluation:
            return
        kept = [a for a in dataset["annotations"] if a["bbox"][2] > 0 and a["bbox"][3] > 0]
        for annotation in kept:
            annotation.setdefault("iscrowd", 0)
            annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        dataset["annotations"] = kept
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
            self._coco_api.createIndex()

    def _derive_coco_results(self, coco_eval, iou_type, class_names=None):
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if class_names is not None and ids is not None:
            class_names = [class_names[ids[number]] for number in sorted(ids)]
        return super()._derive_coco_results(coco_eval, iou_type, class_names)
