#!/usr/bin/env python
"""Seconds and memory of `check_data` on a generated set of 20,000 images of photographs' size.

    python benchmarks/bench_check.py FOLDER --layout voc [--images 20000] [--decode]

makes the set in FOLDER where it is not there (VOC and COCO layout, the same JPEG files), checks it
in one layout and prints seconds, of the readers alone too, and the highest resident memory before
and after.
"""

import argparse
import io
import json
import resource
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


def entry(root: Path, layout: str) -> dict:
    """The set's entry in DATASETS.REGISTER."""
    if layout == "voc":
        return {"name": "many", "format": "voc", "root": str(root), "split": "train"}
    images, annotations = str(root / "JPEGImages"), str(root / "a.json")
    return {"name": "many", "format": "coco", "images": images, "annotations": annotations}


def peak() -> float:
    """The highest resident memory of this process until now, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=("voc", "coco"), required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--decode", action="store_true")
    args = parser.parse_args()
    if not (args.folder / "ImageSets/Main/train.txt").exists():
        generate(args.folder, args.images)

    from detectron2.config import get_cfg
    from detectron2.data import DatasetCatalog

    from alwa_d2 import add_alwa_config
    from alwa_d2.analysis.data_page import page
    from alwa_d2.data import register_datasets
    from alwa_d2.data.preflight import check_data

    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("many",), ()
    before, start = peak(), time.perf_counter()
    register_datasets([entry(args.folder, args.layout)])
    registered = time.perf_counter()
    DatasetCatalog.get("many")
    loaded, memory = time.perf_counter(), peak()
    report = check_data(cfg, decode=args.decode)
    done = time.perf_counter()
    print(page(report))
    print(f"registered in {registered - start:.1f} s, read in {loaded - registered:.1f} s")
    print(f"check_data, which reads again: {done - loaded:.1f} s")
    print(f"peak memory: {before:.0f} MiB before, {memory:.0f} read, {peak():.0f} at the end")


if __name__ == "__main__":
    main()
