"""The config keys that alwa_d2 adds to Detectron2's."""


def add_alwa_config(cfg) -> None:
    """Adds alwa_d2's keys with their defaults to a Detectron2 config, in place.

    Detectron2's own `BBOX_REG_LOSS_TYPE` of `MODEL.RETINANET`, `MODEL.RPN` and
    `MODEL.ROI_BOX_HEAD` take "l1" and "iou" as well as "smooth_l1", "giou", "diou" and "ciou" where
    the model is `AlwaRetinaNet` or `AlwaGeneralizedRCNN`, with `AlwaRPN`.
    """
    CN = type(cfg)

    cfg.MODEL.LOSS_WEIGHTER = CN()
    # Which weighter balances classification and box loss: a name in LOSS_WEIGHTER_REGISTRY.
    # "ALWA" adapts the classification weight while training, "Fixed" keeps WEIGHTS.
    cfg.MODEL.LOSS_WEIGHTER.NAME = "ALWA"
    # "Fixed" only: weights of (classification loss, box-regression loss).
    cfg.MODEL.LOSS_WEIGHTER.WEIGHTS = [1.0, 1.0]

    # "ALWA" only (arXiv 2103.09488; docs/method.md).
    cfg.MODEL.ALWA = CN()
    # The statistic S of a window of losses: "ALWA_1" mean + standard deviation, "ALWA_2" standard
    # deviation. Either serves one-stage and two-stage detectors.
    cfg.MODEL.ALWA.VARIANT = "ALWA_2"
    # What a window holds and when it changes the weight: "balance" or "authors" (as published).
    cfg.MODEL.ALWA.RULE = "balance"
    # Length C of a window, in iterations; at least 2.
    cfg.MODEL.ALWA.INTERVAL = 100
    # "balance" only: floor of the classification weight, in (0, 1].
    cfg.MODEL.ALWA.MIN_WEIGHT = 0.01
    # Iterations from which on the weights stay as they are; 0 for never.
    cfg.MODEL.ALWA.FREEZE_AFTER = 0

    # Which losses are balanced, whatever the weighter: a list of [classification loss, box loss],
    # such as [["loss_rpn_cls", "loss_rpn_loc"]] for the RPN alone. []: the pairs the model has.
    cfg.MODEL.ALWA.PAIRS = []

    # Whether AlwaRetinaNet's loss normaliser averages the numbers of foreground anchors over all
    # processes (an all-reduce an iteration). Detectron2's, and the default, is each process's own.
    cfg.MODEL.RETINANET.SYNC_NORMALIZER = False

    # Whether a training may remove another one's files from OUTPUT_DIR; else it is refused.
    cfg.OVERWRITE = False

    # What SOLVER.AMP.ENABLED computes in: "float16" (Detectron2's) or "bfloat16".
    cfg.SOLVER.AMP.PRECISION = "float16"

    # Data sets to register, a list of dictionaries. VOC layout:
    #   {"name": "my_train", "format": "voc", "root": "data/mine", "split": "train"}
    # with "year" (2007 or 2012, the AP metric; default 2012). COCO layout:
    #   {"name": "my_val", "format": "coco", "images": "data/val", "annotations": "data/val.json"}
    # Either takes "classes", a list of names in the order of their ids. See docs/data.md.
    cfg.DATASETS.REGISTER = []
