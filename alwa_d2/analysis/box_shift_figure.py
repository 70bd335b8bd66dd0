"""The figure of how far a box can slide: curves over the shift, and one box slid over its image."""

from collections.abc import Sequence

from detectron2.data import transforms as T
from detectron2.structures import Instances
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from ..errors import UserError
from .anchor_labels import NOT_POSITIVE, Labeller, Sample, shifted
from .box_shift import DIRECTIONS, Row
from .curves import HUES
from .images import read

STYLES = (dict(ls="-", marker="o"), dict(ls="--", marker="s"), dict(ls=":", marker="^"))
POSITIONS = 4  # of the sliding box in the picture, each in a hue of its own


def choose_example(samples: Sequence[Sample], image: str | None) -> tuple[Sample, int]:
    """The example, a box of median area, one that touches no edge of its image if there is any."""
    if image is not None:
        samples = [sample for sample in samples if str(sample.record["image_id"]) == image]
        if not samples:
            raise UserError(f"--image: no image with boxes is called {image!r}")
    found = []
    for sample in samples:
        boxes, (height, width) = sample.truth.gt_boxes, sample.truth.image_size
        x0, y0, x1, y1 = boxes.tensor.unbind(dim=1)
        free = (x0 > 0) & (y0 > 0) & (x1 < width) & (y1 < height)
        each = zip(boxes.area().tolist(), free.tolist())
        found += [(area, sample, index, is_free) for index, (area, is_free) in enumerate(each)]
    found = [item for item in found if item[3]] or found
    found.sort(key=lambda item: item[0])
    return found[len(found) // 2][1:3]


def draw_curves(panels, rows: Sequence[Row], marked: Sequence[float]) -> None:
    """Three panels over the shift, a line for each direction; `marked` are the example's shifts."""
    shifts = sorted({row.shift_px for row in rows})
    labels = (
        "share of the positives\nthat still are",
        "mean IoU of the\nmoved box",
        "positive anchors\nper image",
    )
    for axes, label in zip(panels, labels):
        axes.set_ylabel(label)
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_xscale("symlog", base=2, linthresh=1)  # linear from 0 to 1
        axes.xaxis.set_major_locator(FixedLocator(shifts))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        for shift, hue in zip(marked, HUES):
            axes.axvline(shift, color=hue, lw=5, alpha=0.35)
    for direction, style in zip(DIRECTIONS, STYLES):
        mine = [row for row in rows if row.direction == direction]
        x, single = [row.shift_px for row in mine], direction == "x"
        for axes, key, colour, label in (
            (panels[0], "still_positive", "black", f"moved in {direction}"),
            (panels[1], "iou_with_unmoved", "black", "with where it was" if single else ""),
            (panels[1], "best_anchor_iou", "0.6", "with its best anchor" if single else ""),
            (panels[2], "positives_per_image", "black", ""),
        ):
            y = [getattr(row, key) for row in mine]
            axes.plot(x, y, color=colour, ms=4, lw=1.4, label=label or "_", gid=key, **style)
    for axes in panels[:2]:
        axes.set_ylim(-0.03, 1.03)
        axes.legend(fontsize=8, loc="lower left")
    panels[2].set_ylim(0, 1.08 * max(row.positives_per_image for row in rows) or None)
    panels[2].set_xlabel("shift of the ground truth in px")


def example_shifts(shifts: Sequence[float], truth: Instances, index: int) -> list[float]:
    """0 and up to three of the shifts, the longest up to the box's width, or else the shortest."""
    x0, _, x1, _ = truth.gt_boxes.tensor[index].tolist()
    return [0.0, *([s for s in shifts if 0 < s <= x1 - x0] or shifts[1:2])[1 - POSITIONS :]]


def draw_example(axes, labeller: Labeller, sample: Sample, index: int, shifts) -> None:
    """One box slid in x over its image, each position with the centres of its positive anchors."""
    truth, size = sample.truth[index], sample.truth.image_size
    draw_image(axes, sample)
    anchors = labeller.anchors(size)
    x0, y0, x1, y1 = truth.gt_boxes.tensor[0].tolist()
    sign = 1 if x0 + x1 < size[1] else -1  # to where there is more room
    at_0 = labeller.label(truth, anchors)[0] != NOT_POSITIVE
    for order, (shift, hue) in enumerate(zip(shifts, HUES)):
        x = sign * shift
        positive = labeller.label(shifted(truth, x, 0), anchors)[0] != NOT_POSITIVE
        label = f"{x:+g} px" if shift else "0 px, where it is"
        label += f": {int(positive.sum())} positive"
        label += f", {int((positive & at_0).sum())} of them at 0 px too" if shift else ""
        for colour, width in (("white", 4.5), (hue, 2.5)):
            frame = dict(fill=False, ec=colour, lw=width, zorder=2 + order / 10)
            axes.add_patch(Rectangle((x0 + x, y0), x1 - x0, y1 - y0, **frame))
        centres = anchors.get_centers()[positive].unique(dim=0).T.numpy()
        dots = dict(s=(16 - 3 * order) ** 2, color=hue, edgecolors="white", lw=0.8)
        axes.scatter(*centres, label=label, zorder=3 + order, **dots)
    middle = ((x0 + x1 + sign * shifts[-1]) / 2, (y0 + y1) / 2)
    reach = shifts[-1] / 2 + max(x1 - x0, y1 - y0)
    axes.set_xlim(max(middle[0] - reach, 0), min(middle[0] + reach, size[1]))
    axes.set_ylim(min(middle[1] + reach, size[0]), max(middle[1] - reach, 0))


def draw_image(axes, sample: Sample) -> None:
    """The image, faded, in the pixels that the model would see."""
    height, width = sample.truth.image_size
    resize = T.ResizeTransform(sample.record["height"], sample.record["width"], height, width)
    image = resize.apply_image(read(sample.record["file_name"], "RGB"))
    axes.imshow(image, extent=(0, width, height, 0), alpha=0.5)


def make_figure(labeller, rows, sample: Sample, index: int, title: str) -> Figure:
    """Curves on the left, the example on the right."""
    figure = Figure(figsize=(12, 7.6), layout="constrained")
    figure.suptitle(title, fontsize=12)
    left, right = figure.subfigures(1, 2)
    shifts = sorted({row.shift_px for row in rows})
    marked = example_shifts(shifts, sample.truth, index)
    draw_curves(left.subplots(3, 1, sharex=True), rows, marked)
    axes = right.subplots()
    draw_example(axes, labeller, sample, index, marked)
    axes.set_title(
        f"image {sample.record['image_id']}: one box slid in x, and the centres of the anchors\n"
        "positive at each position (one dot may stand for several anchors)",
        fontsize=10,
    )
    right.legend(fontsize=9, loc="outside lower center")  # not over the axis below
    return figure
