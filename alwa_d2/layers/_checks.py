"""Argument checks of the fake kernels: those of the C++ ops (csrc/checks.h), in the same words."""

import torch

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MOST_LEVELS = 16
MOST_THRESHOLDS = 8
MOST_WEIGHTS = 16


def shape_of(x) -> list:
    return list(x.shape)


def name_of(dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_dtype(name, x):
    if x.dtype not in FLOATING:
        raise TypeError(
            f"{name}: expected float64, float32, float16 or bfloat16, got {name_of(x.dtype)}"
        )


def check_device(name, x, other_name, other):
    if x.device != other.device:
        raise ValueError(f"{name}: expected device {other.device} as {other_name}, got {x.device}")


def check_shape(name, x, expected):
    if shape_of(x) != list(expected):
        raise ValueError(f"{name}: expected shape {list(expected)}, got {shape_of(x)}")


def check_pairs(pred, target):
    if pred.dim() != 2 or pred.shape[1] != 4:
        raise ValueError(f"pred: expected shape (N, 4), got {shape_of(pred)}")
    check_shape("target", target, pred.shape)
    check_dtype("pred", pred)
    if target.dtype != pred.dtype:
        raise TypeError(
            f"target: expected dtype {name_of(pred.dtype)} as pred, got {name_of(target.dtype)}"
        )
    check_device("target", target, "pred", pred)


def check_grad(grad, expected, dtype, x):
    check_shape("grad", grad, expected)
    if grad.dtype != dtype:
        raise TypeError(f"grad: expected dtype {name_of(dtype)}, got {name_of(grad.dtype)}")
    check_device("grad", grad, "the inputs", x)


def check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got '{value}'")


def check_scale(scale, name, other):
    if scale is not None:
        if scale.dim() != 0:
            raise ValueError(f"scale: expected a 0-dim tensor, got shape {shape_of(scale)}")
        check_device("scale", scale, name, other)


def check_predictions(name, levels, labels_name, labels):
    """The K values an anchor has in a flat (N, R, K) tensor or in (N, A * K, H, W) levels."""
    if labels.dim() != 2:
        raise ValueError(f"{labels_name}: expected shape (N, R), got {shape_of(labels)}")
    images, anchors = labels.shape
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise ValueError(f"{name}: expected 1 to {MOST_LEVELS} levels, got {len(levels)}")
    flat = len(levels) == 1 and levels[0].dim() == 3
    for level in levels:
        _check_level(name, level, levels[0], flat, images, labels_name, labels)
    if flat:
        positions, channels = levels[0].shape[1], levels[0].shape[2]
    else:
        positions = sum(level.shape[2] * level.shape[3] for level in levels)
        channels = levels[0].shape[1]
    per_position = 1 if positions == 0 else anchors // positions
    fits = (
        per_position * positions == anchors
        and (per_position > 0 or channels == 0)
        and (not flat or per_position == 1)
        and (flat or all(level.shape[1] == channels for level in levels))
        and (per_position == 0 or channels % per_position == 0)
        and (anchors == 0 or channels > 0)
    )
    if not fits:
        raise ValueError(
            f"{name}: expected the values of {anchors} anchors an image as in {labels_name} "
            "(on all levels the same A anchors a position, and A * K channels), got shapes "
            + ", ".join(str(shape_of(level)) for level in levels)
        )
    return 0 if per_position == 0 else channels // per_position


def _check_level(name, level, first, flat, images, labels_name, labels):
    if not flat and level.dim() != 4:
        raise ValueError(
            f"{name}: expected one (N, R, K) tensor or levels of shape (N, A * K, H, W), "
            f"got {shape_of(level)}"
        )
    if level.shape[0] != images:
        raise ValueError(
            f"{name}: expected {images} images as in {labels_name}, got shape {shape_of(level)}"
        )
    check_dtype(name, level)
    if level.dtype != first.dtype:
        raise TypeError(
            f"{name}: expected one dtype on all levels, got {name_of(first.dtype)} "
            f"and {name_of(level.dtype)}"
        )
    check_device(name, level, labels_name, labels)


def check_dense(anchors, deltas, gt_boxes, labels, num_classes, box_weights, scale):
    is_mask = labels.dtype == torch.bool
    if not is_mask and labels.dtype != torch.int64:
        raise TypeError(f"labels: expected int64 or bool, got {name_of(labels.dtype)}")
    if not is_mask and (num_classes is None or num_classes < 0):
        raise ValueError(
            f"num_classes: expected the number of classes with int64 labels, got {num_classes}"
        )
    if is_mask and num_classes is not None:
        raise ValueError(
            f"num_classes: expected None with labels that are a bool mask, got {num_classes}"
        )
    values = check_predictions("deltas", deltas, "labels", labels)
    images, count = labels.shape
    if values != 4 and count != 0:
        raise ValueError(f"deltas: expected 4 values an anchor, got {values}")
    check_shape("anchors", anchors, (count, 4))
    check_shape("gt_boxes", gt_boxes, (images, count, 4))
    for name, x in (("anchors", anchors), ("gt_boxes", gt_boxes)):
        check_dtype(name, x)
        check_device(name, x, "labels", labels)
    if len(box_weights) != 4:
        raise ValueError(f"box_weights: expected 4 numbers, got {len(box_weights)}")
    check_scale(scale, "labels", labels)


def check_focal(logits, labels, gamma, scale):
    if labels.dtype != torch.int64:
        raise TypeError(f"labels: expected int64, got {name_of(labels.dtype)}")
    if not 0 <= gamma <= 1e30:
        raise ValueError(f"gamma: expected 0 to 1e30, got {gamma}")
    check_predictions("logits", logits, "labels", labels)
    check_scale(scale, "labels", labels)


def check_rule(thresholds, labels):
    """Those of Detectron2's Matcher, in the form its constructor takes."""
    if not 1 <= len(thresholds) <= MOST_THRESHOLDS:
        raise ValueError(
            f"thresholds: expected 1 to {MOST_THRESHOLDS} numbers, got {len(thresholds)}"
        )
    last = 0.0
    for threshold in thresholds:
        if not (threshold > 0 and threshold >= last):
            raise ValueError(
                f"thresholds: expected positive numbers in ascending order, got {list(thresholds)}"
            )
        last = threshold
    if len(labels) != len(thresholds) + 1:
        raise ValueError(
            f"labels: expected {len(thresholds) + 1} numbers, one more than thresholds, "
            f"got {len(labels)}"
        )
    for label in labels:
        if not -1 <= label <= 1:
            raise ValueError(f"labels: expected each to be -1, 0 or 1, got {label}")


def check_label_anchors(anchors, gt_boxes, gt_classes, thresholds, labels, foreground):
    if anchors.dim() != 2 or anchors.shape[1] != 4:
        raise ValueError(f"anchors: expected shape (R, 4), got {shape_of(anchors)}")
    if anchors.dtype not in (torch.float64, torch.float32):
        raise TypeError(f"anchors: expected float64 or float32, got {name_of(anchors.dtype)}")
    without_classes = foreground is not None and len(gt_classes) == 0
    if not without_classes and len(gt_classes) != len(gt_boxes):
        raise ValueError(
            f"gt_classes: expected {len(gt_boxes)} images as in gt_boxes, got {len(gt_classes)}"
        )
    for i, boxes in enumerate(gt_boxes):
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"gt_boxes: expected shape (G, 4), got {shape_of(boxes)}")
        check_dtype("gt_boxes", boxes)
        check_device("gt_boxes", boxes, "anchors", anchors)
        if not without_classes:
            _check_classes(gt_classes[i], boxes, anchors)
    check_rule(thresholds, labels)


def _check_classes(classes, boxes, anchors):
    if classes.dtype != torch.int64:
        raise TypeError(f"gt_classes: expected int64, got {name_of(classes.dtype)}")
    check_shape("gt_classes", classes, boxes.shape[:1])
    check_device("gt_classes", classes, "anchors", anchors)


def check_loss_scales(num_foreground, normalizer, weights):
    check_shape("num_foreground", num_foreground, ())
    check_shape("normalizer", normalizer, ())
    if num_foreground.dtype not in (torch.int64, torch.float64):
        raise TypeError(
            f"num_foreground: expected int64 or float64, got {name_of(num_foreground.dtype)}"
        )
    if normalizer.dtype != torch.float64:
        raise TypeError(f"normalizer: expected float64, got {name_of(normalizer.dtype)}")
    check_device("num_foreground", num_foreground, "normalizer", normalizer)
    if len(weights) > MOST_WEIGHTS:
        raise ValueError(f"weights: expected at most {MOST_WEIGHTS} tensors, got {len(weights)}")
    for weight in weights:
        check_shape("weights", weight, ())
        if weight.dtype != torch.float64:
            raise TypeError(f"weights: expected float64, got {name_of(weight.dtype)}")
        check_device("weights", weight, "normalizer", normalizer)
