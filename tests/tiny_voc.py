"""A data set of six small pictures, and settings with which a model trains on it in seconds."""

import pytest
from PIL import Image

CLASSES = ("cat", "dog")
INTERVAL = 4  # MODEL.ALWA.INTERVAL


@pytest.fixture(scope="module", name="voc_root")
def make_voc_root(tmp_path_factory):
    """Six small pictures of two classes in VOC layout, the last two of them the test split."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for i in range(6):
        name, box = CLASSES[i % 2], (5 + i, 8, 40 + i, 50)
        image = Image.new("RGB", (64, 64), (40 * i, 90, 120))
        image.paste((255, 255 * (i % 2), 0), box)
        image.save(root / "JPEGImages" / f"{i}.jpg")
        tags = "".join(
            f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        (root / "Annotations" / f"{i}.xml").write_text(
            "<annotation><size><width>64</width><height>64</height></size>"
            f"<object><name>{name}</name><bndbox>{tags}</bndbox></object></annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("0\n1\n2\n3\n")
    (root / "ImageSets/Main/test.txt").write_text("4\n5\n")
    return root


def tiny_settings(root, name):
    """KEY -> value: RetinaNet on the pictures in `root`, as data sets NAME_train and NAME_test."""
    sets = [
        {"name": f"{name}_{split}", "format": "voc", "root": str(root), "split": split}
        for split in ("train", "test")
    ]
    return {
        "DATASETS.REGISTER": sets,
        "DATASETS.TRAIN": f"('{name}_train',)",
        "DATASETS.TEST": f"('{name}_test',)",
        "MODEL.RETINANET.NUM_CLASSES": len(CLASSES),
        "MODEL.ALWA.INTERVAL": INTERVAL,
        "INPUT.MIN_SIZE_TRAIN": "(64,)",
        "INPUT.MIN_SIZE_TEST": 64,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.STEPS": "()",
    }
