"""Data sets of the user's own: the VOC and COCO readers, DATASETS.REGISTER, class checks."""

import itertools
import json
import logging
import math
import os

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode
from PIL import Image

from alwa_d2.config import add_alwa_config
from alwa_d2.data import check_classes, load_voc, read_annotation, read_split, register_datasets
from alwa_d2.data.voc import class_names
from alwa_d2.engine.defaults import setup_cfg

OPTIONAL_TAGS = "<pose>Left</pose><truncated>0</truncated><difficult>0</difficult>"


def xml_object(name, box, optional=OPTIONAL_TAGS):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), box)
    numbers = "".join(f"<{tag}>{number}</{tag}>" for tag, number in tags)
    return f"<object><name>{name}</name>{optional}<bndbox>{numbers}</bndbox></object>"


def xml(*objects, size=(40, 30)):
    if size is not None:
        objects = (f"<size><width>{size[0]}</width><height>{size[1]}</height></size>", *objects)
    return f"<annotation>{''.join(objects)}</annotation>"


def save_image(path, size=(40, 30), **options):
    Image.new("RGB", size, (90, 120, 60)).save(path, **options)


class VOCFolder:
    """A data set in VOC layout that grows by `add`."""

    def __init__(self, root):
        self.root = root
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)

    def add(self, image_id, *objects, suffix=".jpg", size=(40, 30)):
        self.annotation(image_id).write_text(xml(*objects, size=size))
        save_image(self.root / "JPEGImages" / (image_id + suffix))

    def annotation(self, image_id):
        return self.root / "Annotations" / f"{image_id}.xml"

    def split(self, name, text):
        (self.root / "ImageSets/Main" / f"{name}.txt").write_text(text)

    def entry(self, name, split, **more):
        return {"name": name, "format": "voc", "root": str(self.root), "split": split, **more}


@pytest.fixture
def voc(tmp_path):
    """Two images of a cat and a dog, in the splits train (both) and test (the second)."""
    folder = VOCFolder(tmp_path / "voc")
    folder.add("one", xml_object("dog", (1, 2, 11, 22)))
    folder.add("two", xml_object("cat", (5, 5, 40, 30)), xml_object("dog", (3, 3, 9, 9)))
    folder.split("train", "one\ntwo\n")
    folder.split("test", "two\n")
    return folder


pytestmark = pytest.mark.usefixtures("catalogs")


def config(train=(), test=(), **options):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(train), tuple(test)
    cfg.MODEL.META_ARCHITECTURE = options.pop("arch", "AlwaRetinaNet")
    cfg.MODEL.RETINANET.NUM_CLASSES = options.pop("retinanet", 80)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = options.pop("roi_heads", 80)
    return cfg


class TestLoadVOC:
    def test_worked_value(self, voc):
        records = load_voc(str(voc.root), "train", ["cat", "dog"])
        assert [record["image_id"] for record in records] == ["one", "two"]
        assert records[0] == {
            "file_name": str(voc.root / "JPEGImages" / "one.jpg"),
            "image_id": "one",
            "height": 30,
            "width": 40,
            # pixels 1..11 and 2..22 of the file are the intervals [0, 11] and [1, 22]
            "annotations": [
                {"category_id": 1, "bbox": [0.0, 1.0, 11.0, 22.0], "bbox_mode": BoxMode.XYXY_ABS}
            ],
        }

    def test_equals_detectron2(self, voc):
        ours = load_voc(str(voc.root), "train", ["cat", "dog"])
        assert ours == load_voc_instances(str(voc.root), "train", ["cat", "dog"])

    def test_single_image_split(self, voc):
        assert [r["image_id"] for r in load_voc(str(voc.root), "test", ["cat", "dog"])] == ["two"]

    def test_ids_with_spaces_blank_lines_and_windows_endings(self, voc):
        voc.add("my cat 1", xml_object("cat", (1, 1, 9, 9)))
        voc.split("odd", "\ufeff\nmy cat 1 \r\n\r\n  \none")
        assert read_split(str(voc.root), "odd") == ["my cat 1", "one"]
        records = load_voc(str(voc.root), "odd", ["cat", "dog"])
        assert records[0]["file_name"].endswith("my cat 1.jpg")

    def test_repeated_ids_are_used_once(self, voc, caplog):
        voc.split("twice", "one\ntwo\none\n")
        assert read_split(str(voc.root), "twice") == ["one", "two"]
        assert "1 repeated" in caplog.text

    @pytest.mark.parametrize(
        "optional", ["", "<pose/><truncated/><difficult/>", "<difficult>1</difficult>"]
    )
    def test_optional_tags(self, voc, optional):
        voc.annotation("two").write_text(xml(xml_object("cat", (1, 1, 9, 9), optional)))
        assert len(load_voc(str(voc.root), "test", ["cat"])[0]["annotations"]) == 1
        objects = read_annotation(str(voc.annotation("two"))).objects
        assert objects[0].difficult == (optional == "<difficult>1</difficult>")

    def test_float_coordinates(self, voc):
        voc.annotation("two").write_text(xml(xml_object("cat", (1.5, 2.25, "9.75", " 8 "))))
        (instance,) = load_voc(str(voc.root), "test", ["cat"])[0]["annotations"]
        assert instance["bbox"] == [0.5, 1.25, 9.75, 8.0]

    def test_parts_of_an_object_are_not_objects(self, voc):
        part = "<part>" + xml_object("head", (2, 2, 4, 4))[len("<object>") : -len("</object>")]
        whole = xml_object("cat", (1, 1, 9, 9)).replace("</object>", part + "</part></object>")
        voc.annotation("two").write_text(xml(whole))
        (instance,) = load_voc(str(voc.root), "test", ["cat"])[0]["annotations"]
        assert instance["bbox"] == [0.0, 0.0, 9.0, 9.0]

    def test_empty_boxes_by_the_numbers_in_the_file(self, voc, caplog):
        # (7, 7, 7, 9) would be 1 x 2 pixels after the shift of xmin and ymin: judged before it.
        boxes = [(7, 7, 7, 9), (7, 7, 9, 7), (9, 9, 7, 7), (0, 0, 0, 0), (7, 7, 8, 8)]
        voc.annotation("two").write_text(xml(*(xml_object("cat", box) for box in boxes)))
        with caplog.at_level(logging.INFO, logger="alwa_d2"):
            (record,) = load_voc(str(voc.root), "test", ["cat"])
        assert [x["bbox"] for x in record["annotations"]] == [[6.0, 6.0, 8.0, 8.0]]
        path = voc.annotation("two")
        assert [m for m in caplog.messages if "zero area" in m] == [
            f"{voc.root}: 1 image, 1 box; left out: "
            f"3 boxes of zero area (first: {path}, object 1: 'cat': xmin 7, xmax 7), "
            f"1 box reversed (first: {path}, object 3: 'cat': xmin 9 is above xmax 7)"
        ]

    def test_image_without_objects(self, voc):
        voc.annotation("two").write_text(xml())
        assert load_voc(str(voc.root), "test", ["cat"])[0]["annotations"] == []

    @pytest.mark.parametrize("suffix", [".jpeg", ".png", ".JPG"])
    def test_image_suffixes(self, voc, suffix):
        voc.add("other", suffix=suffix)
        voc.split("other", "other\n")
        (record,) = load_voc(str(voc.root), "other", ["cat"])
        assert record["file_name"].endswith("other" + suffix)

    @pytest.mark.parametrize("size", [None, (0, 0), ("", "")])
    def test_size_from_the_image(self, voc, size):
        voc.add("other", size=size)
        voc.split("other", "other\n")
        (record,) = load_voc(str(voc.root), "other", ["cat"])
        assert (record["width"], record["height"]) == (40, 30)

    def test_size_of_a_turned_image(self, voc):
        exif = Image.Exif()
        exif[0x0112] = 6  # shown a quarter turn to the right, as Detectron2 reads it
        voc.add("turned", size=None)
        save_image(voc.root / "JPEGImages" / "turned.jpg", exif=exif)
        voc.split("turned", "turned\n")
        (record,) = load_voc(str(voc.root), "turned", ["cat"])
        assert (record["width"], record["height"]) == (30, 40)

    @pytest.mark.parametrize(
        "text, message",
        [
            ("<annotation><object>", "broken XML"),
            ("", "broken XML"),
            ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "broken XML"),
            (xml("<object><name>cat</name></object>"), "'cat' has no <bndbox>"),
            (xml("<object><bndbox/></object>"), "no <name>"),
            (xml("<object><name>cat</name><bndbox/></object>"), "<bndbox> has no <xmin>"),
            (xml(xml_object("cat", (1, 1, "wide", 5))), "<xmax> must be a number, got 'wide'"),
            (xml(xml_object("cat", (1, 1, "nan", 5))), "<xmax> must be a number, got 'nan'"),
            (xml(xml_object("cat", (1, 1, 5, "inf"))), "<ymax> must be a number, got 'inf'"),
            (xml(size=("big", 3)), "<width> must be a number, got 'big'"),
            (xml(xml_object("cow", (1, 1, 5, 5))), r"unknown class 'cow', expected one of \['cat'"),
        ],
    )
    def test_refused_annotations(self, voc, text, message):
        voc.annotation("two").write_text(text)
        with pytest.raises(ValueError, match=rf"two\.xml(, object 1)?: .*{message}"):
            load_voc(str(voc.root), "test", ["cat", "dog"])

    def test_missing_files(self, voc):
        with pytest.raises(FileNotFoundError, match=r"Main/val\.txt: no such split.*test, train"):
            load_voc(str(voc.root), "val", ["cat", "dog"])
        os.remove(voc.root / "JPEGImages" / "two.jpg")
        with pytest.raises(FileNotFoundError, match=r"JPEGImages/two\.jpg: the image is missing"):
            load_voc(str(voc.root), "test", ["cat", "dog"])
        os.remove(voc.annotation("two"))
        with pytest.raises(FileNotFoundError, match=r"Annotations/two\.xml"):
            load_voc(str(voc.root), "test", ["cat", "dog"])

    def test_empty_split(self, voc):
        voc.split("none", "\n\n")
        with pytest.raises(ValueError, match=r"none\.txt: expected one image id a line"):
            load_voc(str(voc.root), "none", ["cat", "dog"])

    def test_unreadable_image_where_its_size_is_needed(self, voc):
        voc.annotation("two").write_text(xml(size=None))
        (voc.root / "JPEGImages" / "two.jpg").write_text("no image")
        with pytest.raises(OSError, match=r"two\.jpg"):
            load_voc(str(voc.root), "test", ["cat"])


class TestBCCD:
    def test_whole_set(self, bccd, caplog):
        names = class_names(str(bccd))
        assert names == ("Platelets", "RBC", "WBC")
        records = {split: load_voc(str(bccd), split, names) for split in ("train", "val", "test")}
        assert {k: len(v) for k, v in records.items()} == {"train": 205, "val": 87, "test": 72}
        ids = {record["image_id"] for split in records.values() for record in split}
        assert len(ids) == 364
        skipped = [m.split("left out: ")[1] for m in caplog.messages if "of zero area" in m]
        assert sum(int(m.split()[0]) for m in skipped) == 2

    def test_equals_detectron2_but_for_empty_boxes(self, bccd):
        names = class_names(str(bccd))
        empty = 0
        for split in ("train", "val", "test"):
            ours = load_voc(str(bccd), split, names)
            theirs = load_voc_instances(str(bccd), split, names)
            for a, b in zip(ours, theirs, strict=True):
                assert all(a[key] == b[key] for key in ("file_name", "image_id", "height", "width"))
                # Detectron2's shift makes an empty box one pixel wide or high.
                boxes = [x["bbox"] for x in b["annotations"]]
                kept = [min(x1 - x0, y1 - y0) > 1 for x0, y0, x1, y1 in boxes]
                assert a["annotations"] == list(itertools.compress(b["annotations"], kept))
                empty += kept.count(False)
        assert empty == 2


class TestRegisterVOC:
    def test_metadata_and_records(self, voc):
        assert register_datasets([voc.entry("v_train", "train"), voc.entry("v_test", "test")]) == [
            "v_train",
            "v_test",
        ]
        assert len(DatasetCatalog.get("v_train")) == 2
        metadata = MetadataCatalog.get("v_test")
        assert metadata.thing_classes == ["cat", "dog"]
        assert metadata.evaluator_type == "pascal_voc"
        assert (metadata.dirname, metadata.split, metadata.year) == (str(voc.root), "test", 2012)

    def test_classes_are_of_all_annotations(self, voc):
        voc.add("three", xml_object("ant", (1, 1, 5, 5)))  # in no split
        (voc.root / "Annotations" / "._two.xml").write_text("not an annotation")
        register_datasets([voc.entry("v_test", "test")])
        assert MetadataCatalog.get("v_test").thing_classes == ["ant", "cat", "dog"]

    def test_classes_and_year_given(self, voc):
        register_datasets([voc.entry("v", "test", classes=["dog", "emu", "cat"], year=2007)])
        assert MetadataCatalog.get("v").thing_classes == ["dog", "emu", "cat"]
        assert MetadataCatalog.get("v").year == 2007
        assert [x["category_id"] for x in DatasetCatalog.get("v")[0]["annotations"]] == [2, 0]

    def test_name_that_is_not_in_classes(self, voc):
        register_datasets([voc.entry("v", "test", classes=["cat"])])
        with pytest.raises(
            ValueError, match=r"two\.xml, object 2: unknown class 'dog'.*\"classes\""
        ):
            DatasetCatalog.get("v")

    def test_relative_root(self, voc, monkeypatch):
        monkeypatch.chdir(voc.root.parent)
        register_datasets([{**voc.entry("v", "test"), "root": "voc"}])
        monkeypatch.chdir("/")
        assert len(DatasetCatalog.get("v")) == 1

    def test_broken_annotation(self, voc):
        voc.annotation("one").write_text("<annotation>")
        with pytest.raises(ValueError, match=r"one\.xml: broken XML"):
            register_datasets([voc.entry("v", "test")])

    def test_no_objects_at_all(self, voc):
        for image_id in ("one", "two"):
            voc.annotation(image_id).write_text(xml())
        with pytest.raises(ValueError, match="Annotations: expected annotated objects"):
            register_datasets([voc.entry("v", "test")])

    def test_twice(self, voc):
        entry = voc.entry("v", "test")
        register_datasets([entry, dict(entry)])
        assert register_datasets([{**entry, "year": 2012}]) == ["v"]
        assert len(DatasetCatalog.get("v")) == 1

    @pytest.mark.parametrize("one_call", [True, False])
    def test_same_name_other_content(self, voc, one_call):
        first, second = voc.entry("v", "test"), voc.entry("v", "train")
        with pytest.raises(ValueError, match=r"\(v\).*'split': 'test'.*'split': 'train'"):
            if not one_call:
                register_datasets([first])
            register_datasets([first, second])
        assert ("v" in DatasetCatalog) != one_call  # a refused list registers nothing

    @pytest.mark.parametrize("name", ["coco_2017_train", "shapes_test"])
    def test_name_of_another_data_set(self, voc, name):
        message = rf'\({name}\), key "name": expected a name that is not registered yet'
        with pytest.raises(ValueError, match=message):
            register_datasets([voc.entry(name, "test")])

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"name": None}, r'REGISTER\[0\], key "name": expected a string, got None'),
            ({"name": 3}, r'key "name": expected a string, got 3'),
            ({"format": "yolo"}, r'\(v\), key "format": expected one of voc, coco, got \'yolo\''),
            ({"format": None}, r'key "format": expected one of voc, coco, got None'),
            ({"format": ["voc"]}, r'key "format": expected one of voc, coco, got \[\'voc\'\]'),
            ({"split": 7}, r'key "split": expected a string, got 7'),
            ({"root": ["."]}, r'key "root": expected a string'),
            ({"image": "x"}, r'unknown key "image", expected name, format, root, split'),
            ({"part": "most"}, r'key "part": expected "first 80%".*"last 20%".*got \'most\''),
            ({"part": 80}, r'key "part": expected a string, got 80'),
            ({"seed": 1.5}, r'key "seed": expected a whole number, got 1.5'),
            ({"year": "2012"}, r'key "year": expected a whole number, got \'2012\''),
            ({"year": 2010}, r'key "year": expected 2007 or 2012, got 2010'),
            ({"classes": "cat"}, r'key "classes": expected a list of class names, got \'cat\''),
            ({"classes": []}, r'key "classes": expected a list of class names'),
            ({"classes": ["cat", 2]}, r'key "classes": expected a list of class names'),
            ({"classes": ["cat", "cat"]}, r'key "classes": expected class names that differ'),
        ],
    )
    def test_refused_entries(self, voc, change, message):
        with pytest.raises(ValueError, match=message):
            register_datasets([{**voc.entry("v", "test"), **change}])
        assert "v" not in DatasetCatalog

    def test_missing_key(self, voc):
        entry = voc.entry("v", "test")
        del entry["root"]
        with pytest.raises(ValueError, match=r'\(v\), key "root": expected a string.*got None'):
            register_datasets([entry])

    @pytest.mark.parametrize("entries", [{"name": "v"}, "v", None])
    def test_not_a_list(self, entries):
        with pytest.raises(ValueError, match="REGISTER: expected a list of entries"):
            register_datasets(entries)

    def test_not_a_dict(self):
        with pytest.raises(ValueError, match=r"REGISTER\[0\]: expected a dict, got 'v'"):
            register_datasets(["v"])

    def test_missing_paths(self, voc):
        entry = voc.entry("v", "test")
        with pytest.raises(FileNotFoundError, match=r'\(v\), key "root": .*/nowhere'):
            register_datasets([{**entry, "root": str(voc.root / "nowhere")}])
        with pytest.raises(FileNotFoundError, match=r'key "split": .*val\.txt: no such split'):
            register_datasets([{**entry, "split": "val"}])
        (voc.root / "JPEGImages").rename(voc.root / "elsewhere")
        with pytest.raises(FileNotFoundError, match=r'key "root": .*JPEGImages.*elsewhere'):
            register_datasets([entry])


CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def annotation(number, category, box, **more):
    return {"id": number, "image_id": 1, "category_id": category, "bbox": box, "iscrowd": 0, **more}


@pytest.fixture
def coco(tmp_path):
    """Writes a COCO json of one image, keywords replacing parts of it; returns its entry."""
    (tmp_path / "pictures").mkdir()
    save_image(tmp_path / "pictures" / "a.jpg")

    def write(name="c", **parts):
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
            "categories": CATEGORIES,
            "annotations": [annotation(1, 7, [1, 2, 10, 5]), annotation(2, 3, [4, 4, 3, 3])],
        }
        content = {key: part for key, part in {**content, **parts}.items() if part is not None}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        paths = {"images": str(tmp_path / "pictures"), "annotations": str(file)}
        return {"name": name, "format": "coco", **paths}

    return write


class TestRegisterCOCO:
    def test_metadata_and_records(self, coco):
        entry = coco()
        register_datasets([entry])
        metadata = MetadataCatalog.get("c")
        assert metadata.thing_classes == ["dog", "cat"]  # by category id
        assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
        assert metadata.evaluator_type == "coco"
        assert metadata.json_file == entry["annotations"]
        assert metadata.image_root == entry["images"]
        (record,) = DatasetCatalog.get("c")
        assert [x["category_id"] for x in record["annotations"]] == [1, 0]
        assert record["annotations"][0]["bbox"] == [1, 2, 10, 5]
        assert record["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
        assert record["file_name"] == os.path.join(entry["images"], "a.jpg")

    def test_classes_in_another_order(self, coco):
        register_datasets([{**coco(), "classes": ["cat", "dog"]}])
        metadata = MetadataCatalog.get("c")
        assert metadata.thing_classes == ["cat", "dog"]
        assert metadata.thing_dataset_id_to_contiguous_id == {3: 1, 7: 0}
        (record,) = DatasetCatalog.get("c")
        assert [x["category_id"] for x in record["annotations"]] == [0, 1]

    @pytest.mark.parametrize("classes", [["cat"], ["cat", "emu"]])
    def test_a_class_of_objects_that_classes_lack(self, coco, classes):
        with pytest.raises(ValueError, match=r"key \"classes\".*\['dog', 'cat'\].*\['cat'"):
            register_datasets([{**coco(), "classes": classes}])

    def test_empty_boxes(self, coco, caplog):
        boxes = [[1, 1, 0, 5], [1, 1, 5, 0.0], [9, 9, -3, 4], [1, 1, 0.5, 0.5]]
        register_datasets([coco(annotations=[annotation(i, 7, b) for i, b in enumerate(boxes, 1)])])
        (record,) = DatasetCatalog.get("c")
        assert [x["bbox"] for x in record["annotations"]] == [[1, 1, 0.5, 0.5]]
        (line,) = [m.split(": ", 1)[1] for m in caplog.messages if "zero area" in m]
        assert line.startswith("1 image, 1 box; left out: 2 boxes of zero area (first: ")
        assert "1 box reversed (first: " in line and "bbox [9, 9, -3, 4]" in line

    def test_without_annotations(self, coco):
        register_datasets([coco(annotations=None)])
        assert DatasetCatalog.get("c")[0]["annotations"] == []

    def test_twice_and_other_content(self, coco):
        entry = coco()
        register_datasets([entry])
        register_datasets([{**entry, "classes": ["dog", "cat"]}])  # what it has anyway
        with pytest.raises(ValueError, match="already registered"):
            register_datasets([{**entry, "classes": ["cat", "dog"]}])

    def test_missing_paths(self, coco, tmp_path):
        entry = coco()
        with pytest.raises(FileNotFoundError, match=r'\(c\), key "images": .*nowhere'):
            register_datasets([{**entry, "images": str(tmp_path / "nowhere")}])
        with pytest.raises(FileNotFoundError, match=r'key "annotations": .*no\.json'):
            register_datasets([{**entry, "annotations": str(tmp_path / "no.json")}])

    @pytest.mark.parametrize("text", ["{", "[]", "3", '{"images": []}', '{"categories": 3}'])
    def test_broken_file(self, coco, tmp_path, text):
        entry = coco()
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ValueError, match=r"c\.json: not a COCO json file: \S+"):
            register_datasets([entry])

    @pytest.mark.parametrize(
        "text, words",
        [
            ("", "the file is empty$"),
            ("version https://git-lfs", "it begins with b'version https://g"),
        ],
    )
    def test_what_is_no_json_is_told_by_how_it_begins(self, coco, tmp_path, text, words):
        entry = coco()
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ValueError, match=rf"c\.json: not a COCO json file: .*{words}"):
            register_datasets([entry])

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
    def test_encodings_of_windows_tools(self, coco, tmp_path, encoding):
        entry = coco()
        text = (tmp_path / "c.json").read_text(encoding="utf-8")
        (tmp_path / "c.json").write_text(text, encoding=encoding)
        register_datasets([entry])
        assert DatasetCatalog.get("c")

    @pytest.mark.parametrize(
        "categories",
        [
            [],
            [{"id": 1}],
            [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}],
            [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}],
            [{"id": 1, "name": None}],
        ],
    )
    def test_refused_categories(self, coco, categories):
        with pytest.raises(ValueError, match=r"c\.json: not a COCO json file"):
            register_datasets([coco(categories=categories)])

    @pytest.mark.parametrize(
        "parts, message",
        [
            ({"images": None, "annotations": None}, "at least one image"),
            ({"annotations": [annotation(1, 9, [1, 1, 2, 2])]}, r"image id 1: .*category_id 9"),
            ({"annotations": [annotation(1, 7, [1, 1, 2])]}, r"bbox must be .* got \[1, 1, 2\]"),
            ({"annotations": [annotation(1, 7, [1, 1, 2, "3"])]}, "bbox must be"),
            ({"annotations": [annotation(1, 7, [1, 1, 2, math.nan])]}, "bbox must be"),
            ({"annotations": [annotation(1, 7, None)]}, "bbox must be .* got None"),
            ({"annotations": [annotation(1, 7, [1, 1, 2, 2])] * 2}, r"\[1\].*id 1 is that of an"),
            ({"annotations": [annotation(1, 7, [1, 1, 2, 2], ignore=1)]}, '"ignore"'),
        ],
    )
    def test_refused_content(self, coco, parts, message):
        register_datasets([coco(**parts)])
        with pytest.raises(ValueError, match=rf"c\.json.*{message}"):
            DatasetCatalog.get("c")

    def test_missing_image(self, coco):
        register_datasets([coco(images=[{"id": 1, "file_name": "b.jpg", "width": 4, "height": 3}])])
        with pytest.raises(FileNotFoundError, match=r"pictures/b\.jpg: the image is missing"):
            DatasetCatalog.get("c")

    def test_key_of_the_other_format(self, coco):
        with pytest.raises(ValueError, match='unknown key "split", expected name, format, images'):
            register_datasets([{**coco(), "split": "train"}])


class TestCheckClasses:
    def test_fits(self, voc):
        register_datasets([voc.entry("v_train", "train"), voc.entry("v_test", "test")])
        check_classes(config(["v_train"], ["v_test"], retinanet=2))
        check_classes(config(["v_train"], arch="AlwaGeneralizedRCNN", roi_heads=2))
        check_classes(config(["v_train"], arch="ProposalNetwork"))

    def test_sets_of_detectron2(self):
        check_classes(config(["coco_2017_train"], ["coco_2017_val"]))
        check_classes(config(["voc_2012_trainval"], ["voc_2007_test"], retinanet=20))
        with pytest.raises(ValueError, match="NUM_CLASSES: expected 80"):
            check_classes(config(["coco_2017_train"], retinanet=20))

    def test_embedded_set(self):
        check_classes(config(["shapes_train"], ["shapes_test"], retinanet=5))

    def test_no_data_sets(self):
        check_classes(config())

    def test_names_known_after_loading_only(self):
        DatasetCatalog.register("lazy", lambda: [])
        check_classes(config(["lazy"], retinanet=3))

    def test_train_and_test_differ(self, voc):
        entries = [voc.entry("v", "train"), voc.entry("w", "test", classes=["dog", "cat"])]
        register_datasets(entries)
        message = r"v with \['cat', 'dog'\] and w with \['dog', 'cat'\]"
        with pytest.raises(ValueError, match=message):
            check_classes(config(["v"], ["w"], retinanet=2))

    @pytest.mark.parametrize(
        "arch, key", [("RetinaNet", "MODEL.RETINANET"), ("GeneralizedRCNN", "MODEL.ROI_HEADS")]
    )
    def test_number_that_does_not_fit(self, voc, arch, key):
        register_datasets([voc.entry("v", "train")])
        message = rf"{key}\.NUM_CLASSES: expected 2, .* of v \(cat, dog\), got 80"
        with pytest.raises(ValueError, match=message):
            check_classes(config(["v"], arch=arch))

    def test_unknown_name(self, voc):
        register_datasets([voc.entry("my_train", "train")])
        message = r"got 'coco_2017_trian'; nearest names: coco_2017_train.*REGISTER: my_train"
        with pytest.raises(ValueError, match=message):
            check_classes(config(["my_train"], ["coco_2017_trian"], retinanet=2))

    def test_from_yaml_and_command_line(self, voc, tmp_path):
        entry = voc.entry("v", "train")
        (tmp_path / "run.yaml").write_text(json.dumps({"DATASETS": {"REGISTER": [entry]}}))
        from_file, from_options = config(["v"], retinanet=2), config(["v"], retinanet=2)
        from_file.merge_from_file(str(tmp_path / "run.yaml"))
        from_options.merge_from_list(["DATASETS.REGISTER", str([entry])])
        for cfg in (from_file, from_options):
            assert register_datasets(cfg.DATASETS.REGISTER) == ["v"]
            check_classes(cfg)

    def test_json_on_the_command_line(self, voc):
        """null is a name in Python: yacs would take the whole for a text."""
        entry = voc.entry("v", "train", classes=None, year=None)
        text = json.dumps([entry])
        assert "null" in text
        cfg = setup_cfg("", ["DATASETS.REGISTER", text, "MODEL.DEVICE", "cpu"])
        assert cfg.DATASETS.REGISTER == [entry]
        assert MetadataCatalog.get("v").thing_classes == ["cat", "dog"]
        assert MetadataCatalog.get("v").year == 2012

    @pytest.mark.parametrize("text", ['[{"name": nul}]', "[", "[{'name': null}]"])
    def test_neither_python_nor_json(self, text):
        message = r"DATASETS\.REGISTER: expected a list of entries.* neither: .*char \d+"
        with pytest.raises(ValueError, match=message):
            setup_cfg("", ["DATASETS.REGISTER", text])
