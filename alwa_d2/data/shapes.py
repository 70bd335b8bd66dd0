"""The embedded data set: small pictures of shapes, drawn on first use, in PASCAL VOC layout.

For trying things out in minutes on any machine: five classes, one to eight objects an image that
tilt, overlap, leave the picture and may be small or pale, on a textured background with strokes.
Every image has its own random stream, of uniform numbers only (what NumPy's generators keep from
version to version), and is drawn in float64, so that any machine draws the same pictures.
"""

import math
import os
import shutil
import uuid
from dataclasses import dataclass

import numpy as np
from PIL import Image

CLASSES = ("circle", "ring", "square", "star", "triangle")
NUM_IMAGES = {"train": 800, "test": 200}
# What pictures look like. Whoever changes one of these, or the drawing, counts VERSION up: it is
# in the folder's name, so that pictures drawn before are not taken for the new ones.
VERSION = 1
SEED = 20210316
IMAGE_SIZE = 160  # pixels, both sides
OBJECTS = (1, 8)  # wanted number an image; fewer where there is no room
SIZE = (16.0, 72.0)  # pixels, diameter of the circle around a shape
SIZE_POWER = 1.1  # of a uniform number between the two sizes; above 1, small ones are frequent
STRETCH = 1.25  # longest ratio of a shape's two axes
TURN = 30.0  # degrees to either side, at most; circles and squares blur into one if it is 180
MIN_VISIBLE = 0.6  # of each shape's area, what others and the image's border leave
CONTRAST = (45.0, 130.0)  # grey levels (RMS over the channels) to the mean of what is below
PALE_CONTRAST, PALE_SHARE = (25.0, 45.0), 0.1  # the same; share of the objects
# Red, green, blue that a class often has, as real things do; the other objects have any colour.
USUAL_COLOURS = {
    "circle": (210, 60, 60), "ring": (60, 90, 210), "square": (70, 170, 70),
    "star": (225, 200, 60), "triangle": (160, 80, 180),
}  # fmt: skip
USUAL_SHARE, USUAL_SPREAD = 0.6, 50.0  # of the objects; grey levels to either side
STROKES = (0, 4)  # an image
NOISE = 12.0  # grey levels, from the darkest to the brightest
JPEG_QUALITY = 95

_SUBPIXELS = 4  # samples a pixel and axis when a shape's edge is drawn
_TRIALS = 30  # to place all of an image's shapes, and to find a colour


def _polygon(corners: int, start: float, inner: float | None = None) -> list[tuple[float, float]]:
    """Corners on the unit circle, the first at angle `start` (degrees, 90 is down), and for a star
    others at radius `inner` between them."""
    radii = [1.0] * corners if inner is None else [1.0, inner] * corners
    angles = [math.radians(start + 360 * i / len(radii)) for i in range(len(radii))]
    return [(r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles)]


_POLYGONS = {
    "square": _polygon(4, start=45),
    "star": _polygon(5, start=-90, inner=0.45),
    "triangle": _polygon(3, start=-90),
}
_RING_HOLE = 0.55  # radius, of the outer one


@dataclass(frozen=True)
class Shape:
    """One drawn object: `box` is (xmin, ymin, xmax, ymax), pixels from 1, both ends included,
    around all of the shape that is in the image, hidden parts too."""

    name: str
    box: tuple[int, int, int, int]
    truncated: bool


def _between(rng: np.random.Generator, low: float, high: float, power: float = 1) -> float:
    return low + (high - low) * rng.random() ** power


def _whole(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """(IMAGE_SIZE, IMAGE_SIZE, 3) noise in -1..1: random knots, `cells` a side, linear between."""
    knots = 2 * rng.random((cells + 1, cells + 1, 3)) - 1
    position = (np.arange(IMAGE_SIZE) + 0.5) * cells / IMAGE_SIZE
    low = position.astype(int)
    part = (position - low)[:, None, None]
    rows = knots[low] * (1 - part) + knots[low + 1] * part
    part = part.transpose(1, 0, 2)
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _background(rng: np.random.Generator) -> np.ndarray:
    """(IMAGE_SIZE, IMAGE_SIZE, 3) grey levels: a colour, a slope of light, noise, strokes."""
    side = IMAGE_SIZE
    image = np.zeros((side, side, 3)) + 50 + 150 * rng.random(3)
    slope = 60 * rng.random((2, 3)) - 30
    along = (np.arange(side) + 0.5) / side - 0.5
    image += along[:, None, None] * slope[0] + along[None, :, None] * slope[1]
    for cells, amplitude in ((3, 24.0), (10, 14.0), (40, 10.0)):
        image += amplitude * rng.random() * _smooth_noise(rng, cells)
    for _ in range(_whole(rng, *STROKES)):
        _draw_stroke(rng, image)
    return image


def _draw_stroke(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draws one half-transparent straight stroke of random place, width and colour."""
    x0, y0, x1, y1 = (IMAGE_SIZE * rng.random() for _ in range(4))
    width, opacity = _between(rng, 0.7, 3.5), _between(rng, 0.3, 0.9)
    colour = 255 * rng.random(3)
    x, y = np.arange(IMAGE_SIZE)[None, :] + 0.5, np.arange(IMAGE_SIZE)[:, None] + 0.5
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1.0), 0, 1)
    distance = np.sqrt((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
    cover = opacity * np.clip(width - distance + 0.5, 0, 1)[..., None]
    image += cover * (colour - image)


def _inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """True where (u, v), in units of the shape's radius around its centre, is in the shape."""
    if name not in _POLYGONS:
        square = u * u + v * v
        return (square <= 1) & (square >= (_RING_HOLE**2 if name == "ring" else 0))
    corners = _POLYGONS[name]
    inside = np.zeros(u.shape, dtype=bool)
    for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1]):  # even-odd rule
        if v0 != v1:
            inside ^= ((v0 > v) != (v1 > v)) & (u < u0 + (v - v0) * ((u1 - u0) / (v1 - v0)))
    return inside


@dataclass(frozen=True)
class _Placed:
    """A shape on the pixel grid: its window's upper left pixel, coverage and own coordinates."""

    x: int
    y: int
    cover: np.ndarray  # (h, w), share of each pixel, 0..1
    u: np.ndarray  # (h, w), the shape's own axis, about -1..1


def _place(rng: np.random.Generator, name: str) -> _Placed:
    """A shape of random size, turn, stretch and place, as if the image went on for ever."""
    radius = 0.5 * _between(rng, *SIZE, SIZE_POWER)
    stretch = math.sqrt(STRETCH) ** _between(rng, -1, 1)
    angle = math.radians(_between(rng, -TURN, TURN))
    centre_x, centre_y = (_between(rng, 0, IMAGE_SIZE) for _ in range(2))
    reach = radius * max(stretch, 1 / stretch)
    x, y = math.floor(centre_x - reach), math.floor(centre_y - reach)
    w, h = (math.ceil(c + reach) - low for c, low in ((centre_x, x), (centre_y, y)))
    n = _SUBPIXELS
    dx = ((np.arange(w * n) + 0.5) / n + x - centre_x)[None, :]
    dy = ((np.arange(h * n) + 0.5) / n + y - centre_y)[:, None]
    cos, sin = math.cos(angle), math.sin(angle)
    u = (cos * dx + sin * dy) / (radius * stretch)
    v = (cos * dy - sin * dx) / (radius / stretch)
    cover = _inside(name, u, v).reshape(h, n, w, n).mean(axis=(1, 3))
    return _Placed(x, y, cover, u[::n, ::n])


def _crop(placed: _Placed) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the image that the window covers, and the same in the window."""
    h, w = placed.cover.shape
    top, left = max(placed.y, 0), max(placed.x, 0)
    bottom, right = min(placed.y + h, IMAGE_SIZE), min(placed.x + w, IMAGE_SIZE)
    in_window = slice(top - placed.y, bottom - placed.y), slice(left - placed.x, right - placed.x)
    return slice(top, bottom), slice(left, right), *in_window


def _colour(rng: np.random.Generator, below: np.ndarray, name: str) -> np.ndarray:
    """(3,) grey levels that stand off the mean `below` (3,) by a pale or a plain contrast."""
    low, high = PALE_CONTRAST if rng.random() < PALE_SHARE else CONTRAST
    usual = _TRIALS // 2 if rng.random() < USUAL_SHARE else 0  # so many trials with that colour
    for trial in range(_TRIALS):
        colour = 255 * rng.random(3)
        if trial < usual:
            colour = USUAL_COLOURS[name] + USUAL_SPREAD * (colour / 127.5 - 1)
        if low <= math.sqrt(((colour - below) ** 2).mean()) <= high:
            break
    return colour


def _fill(rng: np.random.Generator, colour: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(h, w, 3) grey levels of a surface: plain, shaded, striped or speckled."""
    other = 60 * rng.random(3) - 30
    stripes = np.floor(u * _between(rng, 2, 5)) % 2 - 0.5
    speckles = rng.random(u.shape) - 0.5
    pattern = (0 * u, u, stripes, speckles)[_whole(rng, 0, 3)]
    return colour + pattern[..., None] * other


def _draw_shape(
    rng: np.random.Generator, image: np.ndarray, owner: np.ndarray, areas: list[int], name: str
) -> Shape | None:
    """Draws one more shape and notes it in `owner`, or returns None where it would not fit.

    `owner` (IMAGE_SIZE, IMAGE_SIZE) has the number of the uppermost shape at each pixel, -1 for
    none, and `areas` each shape's pixels, outside of the image too.
    """
    placed = _place(rng, name)
    rows, columns, *window = _crop(placed)
    cover = placed.cover[tuple(window)]
    mask = cover >= 0.5
    area = int((placed.cover >= 0.5).sum())
    trial = owner.copy()
    trial[rows, columns][mask] = len(areas)
    seen = np.bincount(trial.ravel() + 1, minlength=len(areas) + 2)[1:]
    if any(n < MIN_VISIBLE * a for n, a in zip(seen, [*areas, area])):
        return None
    owner[:] = trial
    areas.append(area)
    part = image[rows, columns]
    colour = _colour(rng, part[mask].mean(axis=0), name)
    part += cover[..., None] * (_fill(rng, colour, placed.u[tuple(window)]) - part)
    ys, xs = np.nonzero(mask)
    x, y = columns.start + 1, rows.start + 1  # VOC counts pixels from 1
    box = tuple(int(n) for n in (x + xs.min(), y + ys.min(), x + xs.max(), y + ys.max()))
    return Shape(name, box, truncated=int(mask.sum()) < area)


def draw(index: int) -> tuple[np.ndarray, list[Shape]]:
    """Picture `index`, (IMAGE_SIZE, IMAGE_SIZE, 3) uint8 RGB, and its shapes, the lowest first."""
    rng = np.random.Generator(np.random.PCG64(SEED + index))
    image = _background(rng)
    owner = np.full((IMAGE_SIZE, IMAGE_SIZE), -1)
    areas, shapes = [], []
    wanted, trials = _whole(rng, *OBJECTS), 0
    while len(shapes) < wanted and (not shapes or trials < _TRIALS):
        shape = _draw_shape(rng, image, owner, areas, CLASSES[_whole(rng, 0, len(CLASSES) - 1)])
        shapes += [shape] if shape else []
        trials += 1
    image += NOISE * (rng.random(image.shape) - 0.5)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), shapes


_XML = """<annotation>
  <filename>{image_id}.jpg</filename>
  <size><width>{side}</width><height>{side}</height><depth>3</depth></size>
{objects}</annotation>
"""
_XML_OBJECT = """  <object>
    <name>{name}</name><pose>Unspecified</pose>
    <truncated>{truncated:d}</truncated><difficult>0</difficult>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
  </object>
"""


def _annotation(image_id: str, shapes: list[Shape]) -> str:
    objects = [_XML_OBJECT.format(*s.box, name=s.name, truncated=s.truncated) for s in shapes]
    return _XML.format(image_id=image_id, side=IMAGE_SIZE, objects="".join(objects))


def _write(root: str) -> None:
    """Draws all pictures into the new folder `root`."""
    for folder in ("Annotations", "JPEGImages", os.path.join("ImageSets", "Main")):
        os.makedirs(os.path.join(root, folder))
    index = 0
    for split, number in NUM_IMAGES.items():
        ids = [f"{split}_{i:04d}" for i in range(number)]
        for image_id in ids:
            image, shapes = draw(index)
            path = os.path.join(root, "JPEGImages", image_id + ".jpg")
            Image.fromarray(image).save(path, quality=JPEG_QUALITY)
            with open(os.path.join(root, "Annotations", image_id + ".xml"), "w") as file:
                file.write(_annotation(image_id, shapes))
            index += 1
        with open(os.path.join(root, "ImageSets", "Main", split + ".txt"), "w") as file:
            file.writelines(image_id + "\n" for image_id in ids)


def default_root() -> str:
    """Where the set lies by itself: with Detectron2's own, below DETECTRON2_DATASETS."""
    datasets = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    return os.path.join(os.path.abspath(datasets), f"alwa_d2_shapes_v{VERSION}")


def ensure_shapes(root: str | None = None) -> str:
    """The folder of the set, in VOC layout, drawn first if it is not there (some seconds).

    It is drawn beside its place and moved there whole; of several processes' the first is kept.
    """
    root = default_root() if root is None else os.path.abspath(root)
    last = os.path.join(root, "ImageSets", "Main", "test.txt")
    if os.path.isfile(last):
        return root
    draft = f"{root}.{uuid.uuid4().hex}"
    try:
        _write(draft)
        os.rename(draft, root)
    except OSError as error:
        if not os.path.isfile(last):
            raise OSError(
                f"{root}: the shapes data set cannot be made here ({error}); the environment "
                "variable DETECTRON2_DATASETS may name another folder"
            ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root
