"""The embedded data set: what is drawn, its boxes, and how the folder comes to be."""

import itertools
import os
import threading
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import load_voc_instances
from PIL import Image

from alwa_d2.data import SHAPES_CLASSES, load_voc, shapes
from alwa_d2.data.voc import class_names, read_annotation

# Picture 1 of VERSION 1: objects from the lowest on, mean of the channels in grey levels.
RECORDED_OBJECTS = [
    ("triangle", (95, 106, 152, 157)),
    ("circle", (76, 59, 91, 76)),
    ("square", (6, 105, 18, 118)),
    ("triangle", (91, 70, 103, 85)),
    ("circle", (124, 103, 160, 144)),
    ("ring", (2, 22, 48, 72)),
    ("triangle", (38, 15, 86, 62)),
]
RECORDED_MEAN = (77.9, 121.2, 192.3)


@pytest.fixture
def few(monkeypatch):
    """Six and three pictures instead of hundreds."""
    monkeypatch.setattr(shapes, "NUM_IMAGES", {"train": 6, "test": 3})


@pytest.fixture(scope="module")
def pictures():
    """The first 60 pictures with their objects."""
    return [shapes.draw(index) for index in range(60)]


class TestDraw:
    def test_same_picture_each_time(self, pictures):
        image, objects = shapes.draw(7)
        assert np.array_equal(image, pictures[7][0]) and objects == pictures[7][1]

    def test_pictures_differ(self, pictures):
        assert len({image.tobytes() for image, _ in pictures}) == len(pictures)

    def test_a_picture_as_recorded(self, pictures):
        # If this fails because the generator was changed on purpose: VERSION must change with it,
        # or users keep the pictures that they have. Then record the new values.
        assert shapes.VERSION == 1
        image, objects = pictures[1]
        assert [(o.name, o.box) for o in objects] == RECORDED_OBJECTS
        assert image.mean(axis=(0, 1)) == pytest.approx(RECORDED_MEAN, abs=0.5)

    def test_contents(self, pictures):
        assert {image.shape for image, _ in pictures} == {(160, 160, 3)}
        assert {image.dtype for image, _ in pictures} == {np.dtype(np.uint8)}
        numbers = [len(objects) for _, objects in pictures]
        assert min(numbers) == 1 and max(numbers) == 8
        names = Counter(o.name for _, objects in pictures for o in objects)
        assert set(names) == set(SHAPES_CLASSES) and min(names.values()) > 20
        sizes = [max(x1 - x0, y1 - y0) + 1 for *_, (x0, y0, x1, y1) in boxes_of(pictures)]
        assert min(sizes) < 16 and max(sizes) > 60

    def test_boxes_are_in_the_image_and_not_empty(self, pictures):
        for *_, (xmin, ymin, xmax, ymax) in boxes_of(pictures):
            assert 1 <= xmin < xmax <= 160 and 1 <= ymin < ymax <= 160

    def test_some_overlap_and_some_leave_the_image(self, pictures):
        assert any(o.truncated for _, objects in pictures for o in objects)
        pairs = [pair for _, objects in pictures for pair in itertools.combinations(objects, 2)]
        assert any(overlap(a.box, b.box) for a, b in pairs)

    @pytest.mark.parametrize("name", SHAPES_CLASSES)
    def test_box_is_tight_around_what_is_drawn(self, monkeypatch, name):
        # One shape on black: the box must be where the bright pixels are.
        side = shapes.IMAGE_SIZE
        monkeypatch.setattr(shapes, "_colour", lambda rng, below, name: np.full(3, 200.0))
        monkeypatch.setattr(shapes, "_fill", lambda rng, colour, u: colour + 0 * u[..., None])
        for seed in range(20):
            image, owner = np.zeros((side, side, 3)), np.full((side, side), -1)
            rng = np.random.Generator(np.random.PCG64(seed))
            shape = shapes._draw_shape(rng, image, owner, [], name)
            if shape is None:  # more than half of it would be outside
                continue
            ys, xs = np.nonzero(image[..., 0] >= 100)
            assert shape.box == (xs.min() + 1, ys.min() + 1, xs.max() + 1, ys.max() + 1)

    def test_half_of_each_shape_stays_visible(self, monkeypatch):
        areas, owner = [], np.full((160, 160), -1)
        rng = np.random.Generator(np.random.PCG64(3))
        image = np.full((160, 160, 3), 90.0)
        results = [shapes._draw_shape(rng, image, owner, areas, "square") for _ in range(60)]
        assert None in results and len(areas) > 4
        visible = [int((owner == number).sum()) for number in range(len(areas))]
        assert min(v / a for v, a in zip(visible, areas, strict=True)) >= shapes.MIN_VISIBLE


def boxes_of(pictures):
    return [(o.name, o.box) for _, objects in pictures for o in objects]


def overlap(a, b):
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


class TestFolder:
    def test_voc_layout(self, few, tmp_path):
        root = shapes.ensure_shapes(str(tmp_path / "deep" / "shapes"))
        assert sorted(os.listdir(tmp_path / "deep")) == ["shapes"]
        ids = [record["image_id"] for record in load_voc(root, "train", SHAPES_CLASSES)]
        assert ids == [f"train_{i:04d}" for i in range(6)]
        records = load_voc(root, "test", SHAPES_CLASSES)
        assert len(records) == 3
        # The stock reader sees the same: baselines can be run with Detectron2 alone.
        assert records == load_voc_instances(root, "test", SHAPES_CLASSES)
        assert class_names(root) == SHAPES_CLASSES  # what DATASETS.REGISTER would find

    def test_files_hold_what_was_drawn(self, few, tmp_path):
        root = shapes.ensure_shapes(str(tmp_path / "shapes"))
        image, objects = shapes.draw(6)  # the first after train's six
        annotation = read_annotation(os.path.join(root, "Annotations", "test_0000.xml"))
        assert [(o.name, o.box) for o in annotation.objects] == [(o.name, o.box) for o in objects]
        with Image.open(os.path.join(root, "JPEGImages", "test_0000.jpg")) as saved:
            difference = np.asarray(saved, dtype=float) - image
        assert difference.shape == (160, 160, 3) and np.abs(difference).mean() < 6

    def test_made_once(self, few, tmp_path, monkeypatch):
        root = shapes.ensure_shapes(str(tmp_path / "shapes"))
        monkeypatch.setattr(shapes, "_write", lambda root: pytest.fail("drawn again"))
        assert shapes.ensure_shapes(root) == root

    def test_never_half_made(self, few, tmp_path, monkeypatch):
        def interrupted(path, *args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(Image.Image, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shapes.ensure_shapes(str(tmp_path / "shapes"))
        assert os.listdir(tmp_path) == []

    def test_another_process_was_faster(self, few, tmp_path, monkeypatch):
        root, write = str(tmp_path / "shapes"), shapes._write

        def slow_write(draft):
            write(draft)
            monkeypatch.setattr(shapes, "_write", write)
            shapes.ensure_shapes(root)
            (tmp_path / "shapes" / "first").touch()

        monkeypatch.setattr(shapes, "_write", slow_write)
        assert shapes.ensure_shapes(root) == root
        assert os.listdir(tmp_path) == ["shapes"]
        assert (tmp_path / "shapes" / "first").exists()  # the first one's folder was kept

    def test_several_at_once(self, few, tmp_path):
        start, roots = threading.Barrier(4), []

        def make():
            start.wait()
            roots.append(shapes.ensure_shapes(str(tmp_path / "shapes")))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert roots == [str(tmp_path / "shapes")] * 4
        assert os.listdir(tmp_path) == ["shapes"]
        assert len(load_voc(roots[0], "train", SHAPES_CLASSES)) == 6

    def test_place_that_is_taken(self, few, tmp_path):
        (tmp_path / "shapes").mkdir()
        (tmp_path / "shapes" / "something").touch()
        with pytest.raises(OSError, match="shapes: the shapes data set cannot be made here"):
            shapes.ensure_shapes(str(tmp_path / "shapes"))
        assert os.listdir(tmp_path) == ["shapes"]

    def test_default_place(self, few, tmp_path, monkeypatch):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
        assert shapes.ensure_shapes() == str(tmp_path / "alwa_d2_shapes_v1")
        monkeypatch.delenv("DETECTRON2_DATASETS")
        monkeypatch.chdir(tmp_path)
        assert shapes.default_root() == str(tmp_path / "datasets" / "alwa_d2_shapes_v1")


class TestRegistered:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_metadata(self, split):
        metadata = MetadataCatalog.get(f"shapes_{split}")
        assert metadata.thing_classes == list(SHAPES_CLASSES)
        assert metadata.evaluator_type == "pascal_voc"
        assert (metadata.split, metadata.year) == (split, 2012)

    def test_drawn_when_loaded(self, few, tmp_path, monkeypatch):
        load = DatasetCatalog["shapes_test"]
        assert load.args == (MetadataCatalog.get("shapes_test").dirname, "test")
        records = load.func(str(tmp_path / "shapes"), "test")
        assert len(records) == 3 and all(os.path.isfile(r["file_name"]) for r in records)
