"""Data sets as labelling tools lay them out: folders, lists of ids, names, parts."""

import json
import logging
import os
import re
import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from test_datasets import CATEGORIES, annotation, config, save_image, xml, xml_object

from alwa_d2.data import check_classes, read_split, register_datasets
from alwa_d2.data.findings import BAD_ANNOTATION, MISSING_ANNOTATION, MISSING_IMAGE, Findings
from alwa_d2.data.names import FileIndex
from alwa_d2.data.parts import parse_part
from alwa_d2.engine.defaults import merged_cfg
from alwa_d2.engine.voc_evaluation import VOCEvaluator

REPO = Path(__file__).parents[1]
CAT = xml_object("cat", (1, 1, 9, 9))


pytestmark = pytest.mark.usefixtures("catalogs")


def put(root, *ids, annotations="Annotations", images="JPEGImages", suffix=".jpg"):
    """Writes an XML file and a picture for each id."""
    for image_id in ids:
        for folder, end in ((annotations, ".xml"), (images, suffix)):
            (root / folder / image_id).parent.mkdir(parents=True, exist_ok=True)
            path = root / folder / (image_id + end)
            path.write_text(xml(CAT)) if end == ".xml" else save_image(path)


def lists(root, name, text, folder="ImageSets/Main"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_text(text)


def ids_of(**entry):
    """The image ids that an entry in VOC format gives, in training and in evaluation alike."""
    entry = {"name": "v", "format": "voc", **entry}
    register_datasets([{k: str(v) if k in ("root", "images") else v for k, v in entry.items()}])
    records = DatasetCatalog.get("v")
    assert all(os.path.isfile(record["file_name"]) for record in records)
    assert all(len(record["annotations"]) == 1 for record in records)
    truth = VOCEvaluator("v")._read_truths()[0]
    ids = [record["image_id"] for record in records]
    assert list(truth.boxes) == ids
    return ids


class TestFolders:
    @pytest.mark.parametrize(
        "annotations, images",
        [
            ("Annotations", "JPEGImages"),
            ("annotations", "images"),  # a public set of raccoons
            ("annots", "images"),  # of kangaroos
            ("xmls", "imgs"),
            ("ANNOTATIONS", "Images"),
            ("images", "images"),  # labelImg, in a folder of its own
            (".", "."),  # labelImg
            (".", "images"),
            ("annotations", "."),
        ],
    )
    def test_below_a_root(self, tmp_path, annotations, images):
        put(tmp_path, "a", "b", annotations=annotations, images=images)
        assert ids_of(root=tmp_path) == ["a", "b"]
        text = DatasetCatalog["v"].describe()
        beside = annotations == images
        assert ("beside the pictures" in text) == beside and text.endswith("all of it")

    def test_a_folder_of_annotations_without_xml_is_not_taken(self, tmp_path):
        (tmp_path / "labels").mkdir()  # YOLO's texts
        put(tmp_path, "a", annotations="xml", images="images")
        assert ids_of(root=tmp_path) == ["a"]

    def test_folders_in_place_of_a_root(self, tmp_path):
        put(tmp_path, "a", annotations="one/boxes", images="two/photographs")
        entry = {"annotations": str(tmp_path / "one/boxes")}
        assert ids_of(images=tmp_path / "two/photographs", **entry) == ["a"]

    def test_one_folder_in_place_of_a_root(self, tmp_path):
        put(tmp_path, "a", annotations="mine", images="mine")
        assert ids_of(images=tmp_path / "mine") == ["a"]

    def test_no_folder(self, tmp_path):
        with pytest.raises(ValueError, match=r'\(v\), key "root".*"images" and "annotations"'):
            ids_of()

    def test_nothing_that_looks_like_voc(self, tmp_path):
        (tmp_path / "labels_yolo").mkdir()
        with pytest.raises(FileNotFoundError, match=r'"root".*annots.*beside.*labels_yolo'):
            ids_of(root=tmp_path)

    def test_a_json_file_in_voc_format(self, tmp_path):
        put(tmp_path, "a")
        (tmp_path / "a.json").write_text("{}")
        with pytest.raises(FileNotFoundError, match='"annotations": .*json file is COCO'):
            ids_of(images=tmp_path / "JPEGImages", annotations=str(tmp_path / "a.json"))

    def test_subfolders(self, tmp_path):
        """Flat ids, ids in subfolders, and classes that occur in the latter alone."""
        put(tmp_path, "im1", "night/im2", "night/late/im3")
        assert ids_of(root=tmp_path) == ["im1", "night/im2", "night/late/im3"]
        (tmp_path / "Annotations" / "im1.xml").unlink()
        lists(tmp_path, "train.txt", "night/late/im3\n")
        entry = {"name": "w", "format": "voc", "root": str(tmp_path), "split": "train"}
        register_datasets([entry])
        assert MetadataCatalog.get("w").thing_classes == ["cat"]
        assert [r["image_id"] for r in DatasetCatalog.get("w")] == ["night/late/im3"]

    def test_linked_subfolders_are_followed_once(self, tmp_path):
        put(tmp_path, "a", "b")
        put(tmp_path / "more", "c")
        for folder in ("Annotations", "JPEGImages"):
            (tmp_path / folder / "x").symlink_to(tmp_path / "more" / folder)
            (tmp_path / folder / "round").symlink_to(tmp_path / folder)
        assert ids_of(root=tmp_path) == ["a", "b", "x/c"]


class TestSplits:
    @pytest.mark.parametrize(
        "folder, split",
        [
            ("ImageSets/Main", "train"),
            ("ImageSets/Main", "train.txt"),
            ("ImageSets", "train"),
            ("ImageSets/Layout", "Layout/train"),
            (".", "train"),
            ("lists", "lists/train.txt"),
        ],
    )
    def test_below_the_root(self, tmp_path, folder, split):
        put(tmp_path, "a", "b")
        lists(tmp_path, "train.txt", "b\n", folder)
        assert ids_of(root=tmp_path, split=split) == ["b"]

    def test_any_file(self, tmp_path, monkeypatch):
        put(tmp_path / "set", "a", "b")
        lists(tmp_path, "mine.lst", "b\n", "other")
        assert ids_of(root=tmp_path / "set", split=str(tmp_path / "other/mine.lst")) == ["b"]
        monkeypatch.chdir(tmp_path)
        assert read_split("set", "other/mine.lst") == ["b"]

    def test_a_subfolder(self, tmp_path):
        """Roboflow writes train/, valid/ and test/ with XML beside the pictures."""
        for folder in ("train", "valid"):
            put(tmp_path, "a", "b", annotations=folder, images=folder)
        assert ids_of(root=tmp_path, split="valid") == ["valid/a", "valid/b"]

    def test_an_id_without_xml(self, tmp_path):
        put(tmp_path, "frame_1")
        lists(tmp_path, "train.txt", "frame1\n")
        with pytest.raises(FileNotFoundError, match=r"frame1\.xml: expected .*'frame_1\.xml'"):
            ids_of(root=tmp_path, split="train")

    def test_there_is_none_of_that_name(self, tmp_path):
        put(tmp_path, "a", "night/b")
        lists(tmp_path, "test.txt", "a\n")
        with pytest.raises(FileNotFoundError, match=r"val\.txt: no such split.* test, night"):
            ids_of(root=tmp_path, split="val")

    @pytest.mark.parametrize("end", [".jpg", ".JPG", ".xml", ".tif"])
    def test_ids_with_a_suffix(self, tmp_path, end):
        put(tmp_path, "a", "v1.5")
        lists(tmp_path, "train.txt", f"a{end}\nv1.5{end}\na\n")
        assert ids_of(root=tmp_path, split="train") == ["a", "v1.5"]

    def test_ids_with_the_folder_of_pictures(self, tmp_path):
        put(tmp_path, "a", "JPEGImages/b", "c")
        lists(tmp_path, "train.txt", "JPEGImages/a.jpg\nJPEGImages/b\n./JPEGImages/c.jpg\n")
        assert ids_of(root=tmp_path, split="train") == ["a", "JPEGImages/b", "c"]

    def test_an_id_with_a_dot(self, tmp_path):
        put(tmp_path, "v1.5", "v1.jpg")
        lists(tmp_path, "train.txt", "v1.5\nv1.jpg\n")
        assert ids_of(root=tmp_path, split="train") == ["v1.5", "v1.jpg"]

    def test_a_list_for_one_class(self, tmp_path, caplog):
        put(tmp_path, "a", "b", "c 7", "d")
        lists(tmp_path, "cat_train.txt", "a  1\nb -1\nc 7  0\nd -1\n")
        assert ids_of(root=tmp_path, split="cat_train") == ["a", "c 7"]
        assert "used: 2 images with 1 or 0; left out: 2 with -1" in caplog.text

    def test_ids_that_look_like_a_list_for_one_class(self, tmp_path):
        put(tmp_path, "cat 0", "cat 1")
        lists(tmp_path, "train.txt", "cat 0\ncat 1\n")
        assert ids_of(root=tmp_path, split="train") == ["cat 0", "cat 1"]

    def test_a_list_for_one_class_with_none_of_it(self, tmp_path):
        put(tmp_path, "a")
        lists(tmp_path, "cat_val.txt", "a -1\n")
        with pytest.raises(ValueError, match=r"cat_val\.txt: expected ids with 1 or 0 .* -1 alone"):
            ids_of(root=tmp_path, split="cat_val")


class TestNames:
    @pytest.mark.parametrize("suffix", [".Jpg", ".bmp", ".tif", ".TIFF", ".webp", ".gif", ".ppm"])
    def test_all_that_pillow_reads(self, tmp_path, suffix):
        put(tmp_path, "a", suffix=suffix)
        assert ids_of(root=tmp_path) == ["a"]

    def test_a_format_that_pillow_does_not_read(self, tmp_path):
        put(tmp_path, "a")
        (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/a.raw")
        with pytest.raises(FileNotFoundError, match=r"a\.jpg: the image is missing.*'a\.raw'"):
            ids_of(root=tmp_path)

    @pytest.mark.parametrize(
        "written, there",
        [
            ("Zürich", unicodedata.normalize("NFD", "Zürich")),
            (unicodedata.normalize("NFD", "Zürich"), "Zürich"),
            ("night\\a", "night/a"),
            ("my%20cat", "my cat"),
            ("IMG_1", "img_1"),
            ("./a", "a"),
        ],
    )
    def test_written_otherwise(self, tmp_path, written, there, caplog):
        put(tmp_path, there)
        lists(tmp_path, "train.txt", written + "\n")
        assert ids_of(root=tmp_path, split="train") == [there]
        if written != "./a":
            assert "written otherwise" in caplog.text

    def test_the_name_as_it_is_written_comes_first(self, tmp_path):
        put(tmp_path, "a%20b", "a b", "A b")
        index = FileIndex(str(tmp_path / "JPEGImages"))
        assert index.find("a%20b.jpg") == "a%20b.jpg"
        assert index.find("A%20b.jpg") == "A b.jpg"
        assert index.find("a%20B.jpg") is None  # which of the three?

    def test_the_nearest_name(self, tmp_path):
        put(tmp_path, "sub/frame_0012", "frame_0014")
        index = FileIndex(str(tmp_path / "JPEGImages"))
        assert index.nearest("frame_0012.jpg") == "sub/frame_0012.jpg"
        assert index.nearest("frame_0014.png") == "frame_0014.jpg"
        assert index.nearest("frane_0014.jpg") == "frame_0014.jpg"
        assert index.nearest("qqqq") is None

    def test_all_that_is_missing_is_found_at_once(self, tmp_path):
        put(tmp_path, "a", "b", "c", "d")
        for image_id in ("a", "b"):
            (tmp_path / "JPEGImages" / (image_id + ".jpg")).unlink()
        (tmp_path / "Annotations/c.xml").write_text("<annotation>")
        entry = {"name": "v", "format": "voc", "root": str(tmp_path), "classes": ["cat"]}
        register_datasets([entry])
        findings = Findings()
        records = DatasetCatalog["v"](findings=findings)
        assert [record["image_id"] for record in records] == ["d"]
        assert findings.counts == {MISSING_IMAGE: 2, BAD_ANNOTATION: 1}


def test_a_missing_annotation_file_has_a_remedy_of_its_own(tmp_path):
    put(tmp_path, "a")
    (tmp_path / "list.txt").write_text("a\nb\n")
    entry = {"name": "v", "format": "voc", "root": str(tmp_path), "split": "list"}
    register_datasets([entry])
    findings = Findings()
    DatasetCatalog["v"](findings=findings)
    assert findings.counts == {MISSING_ANNOTATION: 1}
    with pytest.raises(FileNotFoundError, match="b.xml: .* put the file there, or take the id out"):
        DatasetCatalog.get("v")


def test_notes_are_told_once_in_a_process(tmp_path, caplog):
    """However often a set is registered and read; each list, and each folder, has its own."""
    put(tmp_path, "A", "b")
    (tmp_path / "flags.txt").write_text("a 1\nb 1\nb 1\nc -1\n")
    entry = {"name": "v", "format": "voc", "root": str(tmp_path), "split": "flags"}
    with caplog.at_level(logging.WARNING, "alwa_d2"):
        register_datasets([entry])
        assert caplog.messages == []  # before a run's log is there
        for _ in range(3):
            assert len(DatasetCatalog.get("v")) == 2
    first, second = [m for m in caplog.messages if "left out: nothing" not in m]
    assert first == (
        f"{tmp_path}/flags.txt: a list for one class (id, and -1, 0 or 1); used: 3 images with 1 or "
        "0; left out: 1 with -1; used once: 1 repeated image id"
    )
    assert "'A.xml' is taken for 'a.xml'" in second


def coco_file(tmp_path, names, folder="pictures", **parts):
    """A COCO file of images (40 x 30), each with a cat; returns an entry."""
    (tmp_path / folder).mkdir(exist_ok=True)
    images = [
        {"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names, 1)
    ]
    objects = [annotation(i["id"], 7, [1, 1, 9, 9]) | {"image_id": i["id"]} for i in images]
    content = {"images": images, "annotations": objects, "categories": CATEGORIES, **parts}
    (tmp_path / "c.json").write_text(json.dumps(content))
    paths = {"images": str(tmp_path / folder), "annotations": str(tmp_path / "c.json")}
    return {"name": "c", "format": "coco", **paths}


class TestCOCONames:
    @pytest.mark.parametrize(
        "written, there",
        [
            ("Zürich.jpg", unicodedata.normalize("NFD", "Zürich.jpg")),
            ("night\\a.jpg", "night/a.jpg"),
            ("my%20cat.jpg", "my cat.jpg"),
            ("A.JPG", "a.jpg"),
        ],
    )
    def test_written_otherwise(self, tmp_path, written, there):
        entry = coco_file(tmp_path, [written])
        (tmp_path / "pictures" / there).parent.mkdir(exist_ok=True)
        save_image(tmp_path / "pictures" / there)
        register_datasets([entry])
        (record,) = DatasetCatalog.get("c")
        assert record["file_name"] == str(tmp_path / "pictures" / there)

    def test_the_nearest_name(self, tmp_path):
        entry = coco_file(tmp_path, ["a.png"])
        save_image(tmp_path / "pictures/a.jpg")
        register_datasets([entry])
        with pytest.raises(FileNotFoundError, match=r"a\.png: the image is missing .*'a\.jpg'"):
            DatasetCatalog.get("c")

    def test_byte_order_mark(self, tmp_path):
        entry = coco_file(tmp_path, ["a.jpg"])
        save_image(tmp_path / "pictures/a.jpg")
        (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "c.json").read_bytes())
        register_datasets([entry])
        assert len(DatasetCatalog.get("c")) == 1


class TestParts:
    NAMES = [f"frame {i}.jpg" for i in range(50)]

    @pytest.mark.parametrize("first, last", [("80%", "-20%"), ("first 66.5%", "last 33.5 %")])
    def test_complementary(self, first, last):
        parts = [parse_part(text, 0).of(self.NAMES) for text in (first, last)]
        assert not parts[0] & parts[1] and parts[0] | parts[1] == set(self.NAMES)
        assert len(parts[0]) == {"80%": 40, "first 66.5%": 33}[first]

    def test_three_ways(self):
        parts = [parse_part(text, 3).of(self.NAMES) for text in ("70%", "70%-85%", "last 15%")]
        assert [len(part) for part in parts] == [35, 8, 7]  # bounds at 35 and 42.5, rounded up
        assert set().union(*parts) == set(self.NAMES)

    def test_the_order_of_the_names_does_not_matter_but_the_seed_does(self):
        part = parse_part("first 50%", 0).of(self.NAMES)
        assert part == parse_part("50%", 0).of(self.NAMES[::-1]) != set(self.NAMES[:25])
        assert part != parse_part("50%", 1).of(self.NAMES)

    def test_recorded(self):
        """The images of a part stay the same for good: results would not compare otherwise."""
        assert parse_part("first 10%", 0).of(self.NAMES[:10]) == {"frame 7.jpg"}

    @pytest.mark.parametrize("text", ["80", "0%", "120%", "last 0%", "85%-70%", "80%%", "", "half"])
    def test_refused(self, text):
        with pytest.raises(ValueError, match='expected "first 80%"'):
            parse_part(text, 0)

    def test_overlaps(self):
        def overlap(a, b, seed=0):
            return parse_part(a, 0).overlaps(parse_part(b, seed))

        assert not overlap("80%", "last 20%") and not overlap("70%-85%", "last 15%")
        assert overlap("80%", "20%") and overlap("80%", "last 30%")
        assert overlap("80%", "last 20%", seed=1)

    def test_of_a_voc_set(self, tmp_path, caplog):
        put(tmp_path, *"abcdefghij")
        train = ids_of(root=tmp_path, part="first 70%", seed=5)
        entry = {"name": "w", "format": "voc", "root": str(tmp_path), "part": "last 30%", "seed": 5}
        with caplog.at_level(logging.INFO, logger="alwa_d2"):
            register_datasets([entry])
            test = [record["image_id"] for record in DatasetCatalog.get("w")]
        assert len(train) == 7 and sorted(train + test) == list("abcdefghij")
        assert train == sorted(train)  # the order of the list stays
        assert 'part "last 30%" with seed 5' in caplog.text

    def test_of_a_coco_set(self, tmp_path):
        """An image that is there under two ids is in one part alone; annotations go along."""
        names = [f"{i}.jpg" for i in range(8)] * 2
        entry = coco_file(tmp_path, names)
        for name in names:
            save_image(tmp_path / "pictures" / name)
        entries = [entry | {"name": "c", "part": "75%"}, entry | {"name": "d", "part": "-25%"}]
        register_datasets(entries)
        train, test = (DatasetCatalog.get(name) for name in ("c", "d"))
        assert (len(train), len(test)) == (12, 4)
        assert not {r["file_name"] for r in train} & {r["file_name"] for r in test}
        assert all(len(record["annotations"]) == 1 for record in train + test)

    def test_of_too_few_images(self, tmp_path):
        put(tmp_path, "a")
        with pytest.raises(
            ValueError, match='v: part "last 20%" with seed 0 holds none of 1 image'
        ):
            ids_of(root=tmp_path, part="last 20%")

    def test_training_and_test_with_common_images(self, tmp_path):
        put(tmp_path, *"abcdefghij")
        entry = {"format": "voc", "root": str(tmp_path)}
        parts = {"v": "80%", "w": "20%", "x": "last 20%"}
        register_datasets([entry | {"name": name, "part": part} for name, part in parts.items()])
        check_classes(config(["v"], ["x"], retinanet=1))
        with pytest.raises(ValueError, match=r'v with part "80%".* w with part "20%".*last 20%'):
            check_classes(config(["v"], ["w"], retinanet=1))


def test_classes_that_the_data_lack(tmp_path):
    entry = coco_file(tmp_path, ["a.jpg"])
    Image.new("RGB", (40, 30)).save(tmp_path / "pictures/a.jpg")
    register_datasets([entry | {"classes": ["emu", "cat", "yak", "dog"]}])
    (record,) = DatasetCatalog.get("c")
    assert record["annotations"][0]["category_id"] == 1
    # New ids for what the file lacks: pycocotools gives each class of the model an AP by its id.
    numbers = MetadataCatalog.get("c").thing_dataset_id_to_contiguous_id
    assert numbers == {3: 3, 7: 1, 8: 0, 9: 2}


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    """docs/data.md's YAML, with the data that it speaks of."""
    put(tmp_path / "data/cells", *"abcdefghij")
    lists(tmp_path / "data/cells", "train.txt", "a\nb\n")
    lists(tmp_path / "data/cells", "test.txt", "c\n")
    names = [f"{name}.jpg" for name in "abcdefghij"]
    coco_file(tmp_path, names)
    (tmp_path / "c.json").rename(tmp_path / "data/cells/all.json")
    (tmp_path / "data/cells/JPEGImages").rename(tmp_path / "data/cells/images")
    (tmp_path / "configs").symlink_to(REPO / "configs")
    monkeypatch.chdir(tmp_path)
    text = (REPO / "docs/data.md").read_text()
    examples = re.findall("```yaml\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example, numbers in zip(examples, [(2, 1), (8, 2)]):
        (tmp_path / "cells.yaml").write_text(example.replace("CLASSES: 3", "CLASSES: 1"))
        cfg = merged_cfg("cells.yaml")
        names = register_datasets(cfg.DATASETS.REGISTER)
        assert tuple(len(DatasetCatalog.get(name)) for name in names) == numbers
        if cfg.DATASETS.TRAIN:
            check_classes(cfg)
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
