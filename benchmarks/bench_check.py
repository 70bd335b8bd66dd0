#!/usr/bin/env python
"""Seconds and memory of `alwa-d2 check-data` on a generated set, by default 20,000 photographs' size.

    python benchmarks/bench_check.py FOLDER [--images 20000] [--decode]

makes the set in FOLDER where it is not there (VOC and COCO layout, the same JPEG files), checks it
in either layout, and prints seconds (median of 3) and the highest resident memory above the start's.
"""

import argparse
import io
import json
import resource
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("one", "two", "three", "four", "five")
BOXES = 7  # an image, as COCO has
PICTURES = 100  # different ones; each file has a comment of its own, so that all files differ
XML = "<annotation><size><width>{}</width><height>{}</height></size>{}</annotation>"
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def jpegs(rng) -> list[tuple[int, int, bytes]]:
    """Width, height and JPEG of PICTURES smooth pictures of about 500 x 375 pixels."""
    made = []
    for _ in range(PICTURES):
        width, height = (int(n) for n in rng.integers((400, 300), (640, 480)))
        knots = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        picture = knots.resize((width, height), Image.Resampling.BICUBIC)
        picture.save(buffer := io.BytesIO(), "JPEG", quality=90)
        made.append((width, height, buffer.getvalue()))
    return made


def boxes_in(rng, width: int, height: int) -> list[list[int]]:
    """BOXES boxes (xmin, ymin, xmax, ymax) in pixels from 1, at least 4 a side."""
    x0, y0 = rng.integers(1, width - 8, BOXES), rng.integers(1, height - 8, BOXES)
    x1, y1 = rng.integers(x0 + 4, width), rng.integers(y0 + 4, height)
    return np.stack([x0, y0, x1, y1], axis=1).tolist()


def generate(root: Path, number: int) -> None:
    """Writes the set in both layouts below `root`."""
    rng = np.random.default_rng(1)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pictures = jpegs(rng)
    images, annotations = [], []
    for index in range(number):
        width, height, data = pictures[index % PICTURES]
        comment = f"{index:08d}".encode()
        data = data[:2] + b"\xff\xfe\x00\x0a" + comment + data[2:]
        (root / "JPEGImages" / f"{index:08d}.jpg").write_bytes(data)
        name = f"{index:08d}.jpg"
        images.append({"id": index, "file_name": name, "width": width, "height": height})
        objects = ""
        for box in boxes_in(rng, width, height):
            number_of_class = int(rng.integers(len(CLASSES)))
            objects += OBJECT.format(CLASSES[number_of_class], *box)
            xywh = [box[0] - 1, box[1] - 1, box[2] - box[0] + 1, box[3] - box[1] + 1]
            item = {"id": len(annotations) + 1, "image_id": index, "category_id": number_of_class}
            annotations.append(item | {"bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0})
        xml = XML.format(width, height, objects)
        (root / "Annotations" / f"{index:08d}.xml").write_text(xml)
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "a.json").write_text(json.dumps(content))
    ids = [f"{index:08d}\n" for index in range(number)]
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(ids))
