"""Sheets of images with boxes: ground truth, and beside it the detections of a run, or of two."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .fonts import font, legend, readable, stand_ins
from .matching import MATCH_IOU, Sample, match
from .pictures import RGB

# All in pixels of the sheet.
TILE = 320  # longest side of an image
GAP, TITLE, HEADER = 10, 22, 62  # between tiles, above each tile, above all of them
LINE, DASH = 2, 6  # width of a box's line, length of its dashes
PAIRS = 2  # images in a row, two tiles each
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Style:
    """How boxes of one kind look; hues of Okabe and Ito's palette, for colour-blind readers too."""

    meaning: str
    colour: RGB
    text: RGB = WHITE
    dashed: bool = False


TRUTH = Style("ground truth", (0, 114, 178))
TRUE = Style(f"true positive (same class, IoU >= {MATCH_IOU})", (0, 140, 102))
FALSE = Style("false positive", (213, 94, 0))
MISSED = Style("missed ground truth", (240, 228, 66), BLACK, dashed=True)
STYLES = (TRUTH, TRUE, FALSE, MISSED)
CLASS, IMAGE = "#", "image "  # before the numbers that stand for names which no font can draw
COLOURS = (BLACK, *(style.colour for style in STYLES))  # to be kept exact in a PNG file


@dataclass(frozen=True)
class Mark:
    """A box to draw, XYXY, with its label."""

    box: list[float]
    text: str
    style: Style

    def moved(self, factor: float, x: int, y: int) -> "Mark":
        """The mark in an image that was scaled by `factor` and put at (x, y)."""
        box = [value * factor + shift for value, shift in zip(self.box, (x, y, x, y))]
        return Mark(box, self.text, self.style)


def marks(sample: Sample, names: Sequence[str]) -> tuple[list[Mark], list[Mark]]:
    """What to draw on the left tile and on the right one."""
    names = stand_ins(names, CLASS)

    def name(number: int) -> str:  # a model may know more classes than the data set
        return names[number] if number < len(names) else f"class {number}"

    hit, missed = match(sample.truth, sample.found)
    true_boxes = sample.truth.gt_boxes.tensor.tolist()
    true_names = [name(number) for number in sample.truth.gt_classes.tolist()]
    left = [Mark(box, text, TRUTH) for box, text in zip(true_boxes, true_names)]
    right = [Mark(mark.box, mark.text, MISSED) for mark, lost in zip(left, missed) if lost]
    for index in sample.found.scores.argsort().tolist():  # the surest on top
        score, number = float(sample.found.scores[index]), int(sample.found.pred_classes[index])
        box = sample.found.pred_boxes.tensor[index].tolist()
        right.append(Mark(box, f"{name(number)} {score:.2f}", TRUE if hit[index] else FALSE))
    return left, right


def draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], style: Style) -> None:
    """The outline of `box` with a rim, to be seen on light and on dark ground."""
    x0, y0, x1, y1 = (round(value) for value in box)
    x1, y1 = max(x0, x1), max(y0, y1)
    if not style.dashed:
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=WHITE)
        draw.rectangle((x0, y0, x1, y1), outline=style.colour, width=LINE)
        return
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=BLACK, width=LINE + 1)
    for x in range(x0, x1, 2 * DASH):
        for y in (y0, y1 - LINE + 1):
            draw.rectangle((x, y, min(x + DASH, x1), y + LINE - 1), fill=style.colour)
    for y in range(y0, y1, 2 * DASH):
        for x in (x0, x1 - LINE + 1):
            draw.rectangle((x, y, x + LINE - 1, min(y + DASH, y1)), fill=style.colour)


def place_label(size, box, frame, taken) -> tuple[float, float, float, float]:
    """Where a label of `size` goes: at a corner of `box` inside `frame`, clear of those `taken`."""
    (width, height), (x0, y0, x1, y1) = size, box
    places = []
    for y in (y0 - height, y0, y1 - height, y1):
        for x in (x0, x1 - width):
            left = max(min(x, frame[2] - width), frame[0])
            top = max(min(y, frame[3] - height), frame[1])
            places.append((left, top, left + width, top + height))

    def covered(place) -> float:
        """Area of the labels under `place`, in pixels."""
        across = [min(place[2], other[2]) - max(place[0], other[0]) for other in taken]
        down = [min(place[3], other[3]) - max(place[1], other[1]) for other in taken]
        return sum(max(w, 0) * max(h, 0) for w, h in zip(across, down))

    return min(places, key=covered)


def draw_tile(sheet: Image.Image, picture: Image.Image, corner, title: str, shown: list[Mark]):
    """`picture` at `corner` (x, y) below its title, with boxes and, above them all, labels."""
    draw = ImageDraw.Draw(sheet)
    x, y = corner[0], corner[1] + TITLE
    title = readable(title)
    face = font(13, title)
    while draw.textlength(title, face) > picture.width and len(title) > 4:
        title = title[:-4] + "..."
    draw.text((x, corner[1] + 3), title, fill=BLACK, font=face)
    sheet.paste(picture, (x, y))
    for mark in shown:
        draw_box(draw, mark.box, mark.style)
    taken = []
    for mark in shown:
        size = (round(draw.textlength(mark.text, font(11, mark.text))) + 5, 14)
        frame = (x, y, x + picture.width, y + picture.height)
        taken.append(place_label(size, [round(value) for value in mark.box], frame, taken))
    for mark, place in zip(shown, taken):
        draw.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=mark.style.colour)
        where = (place[0] + 3, (place[1] + place[3]) / 2)  # in the middle, whatever the font
        face = font(11, mark.text)
        draw.text(where, mark.text, fill=mark.style.text, font=face, anchor="lm")


def legend_places(counts: Mapping) -> tuple[list[tuple[Style, str, int]], int]:
    """Each kind of box with its text in the legend and where it begins, and where all end."""
    places, x = [], GAP
    for style in STYLES:
        text = f"{style.meaning}: {counts[style]}"
        places.append((style, text, x))
        x += round(font(13).getlength(text)) + 57
    return places, x


def draw_header(sheet: Image.Image, title: str, counts: Mapping) -> None:
    """The sheet's title, and below it the legend with the number of boxes of each kind."""
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 8), title, fill=BLACK, font=font(16, title))
    for style, text, x in legend_places(counts)[0]:
        draw_box(draw, (x + 1, 38, x + 25, 53), style)
        draw.text((x + 33, 38), text, fill=BLACK, font=font(13))


def image_names(samples: Sequence[Sample]) -> list[str]:
    """The images' names as they can be drawn."""
    return stand_ins([sample.name for sample in samples], IMAGE)


def legends(samples: Sequence[Sample], names: Sequence[str]) -> str:
    """What a sheet's numbers stand for where no font has the letters of a name; else ""."""
    both = legend(names, CLASS), legend([sample.name for sample in samples], IMAGE)
    return "\n".join(filter(None, both))


def make_sheet(
    samples: Sequence[Sample], names: Sequence[str], title: str, tile: int = TILE
) -> Image.Image:
    """All samples, PAIRS in a row, under a title and a legend; images scaled to `tile` pixels."""
    groups, counts = [], Counter()
    for sample, image in zip(samples, image_names(samples)):
        left, right = marks(sample, names)
        counts.update(mark.style for mark in left + right)
        shown = [(f"ground truth: {image}", left), (f"detections: {image}", right)]
        groups.append((sample.image, shown))
    return lay_out(groups, title, counts, PAIRS, tile)


def make_comparison(
    rows: Sequence[Sequence[Sample]],
    labels: Sequence[str],
    names: Sequence[str],
    title: str,
    tile: int = TILE,
) -> Image.Image:
    """An image a row: ground truth, and a tile for each of `labels`, whose samples `rows` hold."""
    groups, counts = [], [Counter() for _ in labels]
    images = image_names([samples[0] for samples in rows])
    for samples, image in zip(rows, images):
        both = [marks(sample, names) for sample in samples]
        shown = [(f"ground truth: {image}", both[0][0])]
        for label, count, (left, right) in zip(labels, counts, both):
            shown.append((label, right))
            count.update(mark.style for mark in left + right)
        groups.append((samples[0].image, shown))
    letters = "ABCDEFGH"
    texts = {
        style: ", ".join(f"{letter} {count[style]}" for letter, count in zip(letters, counts))
        for style in STYLES
    }
    texts[TRUTH] = str(counts[0][TRUTH])
    return lay_out(groups, title, texts, 1, tile)


def lay_out(groups, title: str, counts: Mapping, columns: int, tile: int) -> Image.Image:
    """A sheet of `groups`, `columns` in a row: (image, [(title of a tile, its marks), ...])."""
    title, pictures = readable(title), []
    for image, shown in groups:
        factor = tile / max(image.shape[:2])
        size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
        picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
        pictures.append((picture, factor, shown))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [TITLE + GAP + max(picture.height for picture, *_ in row) for row in rows]
    tiles = max((len(shown) for _, shown in groups), default=1)
    step = tiles * (tile + GAP) + 2 * GAP  # from one group of tiles to the next
    header = max(legend_places(counts)[1], 2 * GAP + round(font(16, title).getlength(title)))
    width = max(min(columns, len(pictures)) * step - GAP, header)
    sheet = Image.new("RGB", (width, HEADER + sum(heights)), WHITE)
    draw_header(sheet, title, counts)
    for index, row in enumerate(rows):
        y = HEADER + sum(heights[:index])
        for column, (picture, factor, shown) in enumerate(row):
            for side, (what, marked) in enumerate(shown):
                x = GAP + column * step + side * (tile + GAP)
                marked = [mark.moved(factor, x, y + TITLE) for mark in marked]
                draw_tile(sheet, picture, (x, y), what, marked)
    return sheet
