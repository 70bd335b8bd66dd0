"""What files and config values that nobody vouches for do: one clear error, or a defined result."""

import json
import math
import os
import struct
import zlib

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import Boxes, Instances
from PIL import Image
from test_datasets import CATEGORIES, VOCFolder, annotation, save_image, xml, xml_object

from alwa_d2 import add_alwa_config
from alwa_d2._show import show
from alwa_d2.data import (
    check_classes,
    load_voc,
    read_annotation,
    read_split,
    register_datasets,
    voc_split,
    xml_tree,
)
from alwa_d2.data.voc import class_names, image_size
from alwa_d2.engine import COCOEvaluator
from alwa_d2.weighting import ALWA, Fixed, build_loss_weighter

LONG = "9" * 5000
BOX = xml(xml_object("cat", (1, 1, 9, 9)))


@pytest.fixture
def voc(tmp_path):
    folder = VOCFolder(tmp_path / "voc")
    folder.add("two", xml_object("cat", (1, 1, 9, 9)))
    folder.split("test", "two\n")
    return folder


@pytest.fixture
def coco(tmp_path):
    """Registers a COCO json of one image, keywords replacing parts of it, or of a raw text."""
    (tmp_path / "pictures").mkdir()
    save_image(tmp_path / "pictures" / "a.jpg")

    def write(raw=None, **parts):
        content = {"images": [IMAGE], "categories": CATEGORIES, "annotations": [ANNOTATION]}
        file = tmp_path / "h.json"
        file.write_bytes(json.dumps({**content, **parts}).encode() if raw is None else raw)
        paths = {"images": str(tmp_path / "pictures"), "annotations": str(file)}
        register_datasets([{"name": "h", "format": "coco", **paths}])

    yield write
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop("h", None)


IMAGE = {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
ANNOTATION = annotation(1, 7, [1, 2, 10, 5])


def load(voc, text=None):
    if text is not None:
        voc.annotation("two").write_bytes(text if isinstance(text, bytes) else text.encode())
    (record,) = load_voc(str(voc.root), "test", ["cat"])
    return record


def number_of_boxes(voc, text):
    return len(load(voc, text)["annotations"])


class TestXML:
    def laughs(self):
        levels = "".join(f'<!ENTITY a{i + 1} "{f"&a{i};" * 10}">' for i in range(9))
        return f'<!DOCTYPE annotation [<!ENTITY a0 "lol">{levels}]><annotation>&a9;</annotation>'

    @pytest.mark.parametrize(
        "doctype",
        [
            '[<!ENTITY a "AAAA">]',
            '[<!ENTITY a SYSTEM "file:///etc/passwd">]',
            '[<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]',
            '[<!ENTITY % a SYSTEM "http://127.0.0.1:9/a"> %a;]',
            '[<!ATTLIST object a CDATA "AAAA">]',  # a long default multiplies in every <object>
        ],
    )
    def test_declarations_are_refused(self, voc, doctype):
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: expected no declarations"):
            load(voc, f"<!DOCTYPE annotation {doctype}>{BOX}")

    def test_billion_laughs(self, voc):
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: expected no declarations"):
            load(voc, self.laughs())

    def test_a_doctype_that_names_a_file_is_not_followed(self, voc):
        dtd = voc.root / "Annotations" / "a.dtd"
        os.mkfifo(dtd)  # reading it would block
        assert number_of_boxes(voc, f'<!DOCTYPE annotation SYSTEM "{dtd}">{BOX}') == 1
        with pytest.raises(ValueError, match=r"two\.xml: .*without entities, got &a;"):
            load(voc, f'<!DOCTYPE annotation SYSTEM "{dtd}"><annotation>&a;</annotation>')

    def test_deep_nesting(self, voc):
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: expected at most 64 levels"):
            load(voc, "<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>")

    def test_large_file(self, voc):
        padding = "<a>" + "A" * xml_tree.MAX_BYTES + "</a></annotation>"
        with pytest.raises(ValueError, match=r"two\.xml: expected at most 8388608 bytes"):
            load(voc, BOX.replace("</annotation>", padding))

    @pytest.mark.parametrize("kind", ["pipe", "folder", "circle", "device"])
    def test_what_is_no_file(self, voc, kind):
        path = voc.annotation("two")
        path.unlink()
        make = {"pipe": os.mkfifo, "folder": os.mkdir, "circle": lambda p: os.symlink(p, p)}
        make.get(kind, lambda p: os.symlink("/dev/zero", p))(path)
        for read in (lambda: load(voc), lambda: class_names(str(voc.root))):
            with pytest.raises(FileNotFoundError, match=r"two\.xml: expected an XML file"):
                read()

    @pytest.mark.parametrize(
        "text",
        [
            b"\0" * 100,
            b"\xff" * 100,
            BOX.encode()[:-30],
            (BOX * 2).encode(),
            BOX.replace("cat", "c\0t").encode(),
            BOX.replace("cat", "\xe9").encode("latin-1"),
            b'<?xml version="1.0" encoding="utf-7"?>' + BOX.encode(),
        ],
        ids=range(7),
    )
    def test_broken(self, voc, text):
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: \S+"):
            load(voc, text)

    def test_other_encodings(self, voc):
        assert number_of_boxes(voc, BOX.encode("utf-16")) == 1
        latin = '<?xml version="1.0" encoding="latin-1"?>' + BOX.replace("<pose>Left", "<pose>\xe9")
        assert number_of_boxes(voc, latin.encode("latin-1")) == 1

    @pytest.mark.parametrize(
        "declared, text, encoding",
        [
            ("GBK", "细胞", "gbk"),
            ("gb2312", "朱镕基", "gbk"),  # the second character is in GBK alone
            ("GB18030", "细胞", "gb18030"),
            ("Big5", "細胞", "big5"),
            ("Shift_JIS", "表示①", "cp932"),  # a backslash as second byte, and a later character
            ("EUC-JP", "細胞", "euc_jp"),
            ("EUC-KR", "세포", "cp949"),
            ("windows-1251", "клетка", "cp1251"),
        ],
    )
    def test_encodings_as_declared(self, voc, declared, text, encoding):
        body = BOX.replace("<name>cat", f"<name>{text}")
        path = voc.annotation("two")
        path.write_bytes(f"<?xml version='1.0' encoding='{declared}'?>{body}".encode(encoding))
        (obj,) = read_annotation(str(path)).objects
        assert obj.name == text

    def test_what_is_declared_does_not_open_a_door(self, voc):
        head = '<?xml version="1.0" encoding="gbk"?><!DOCTYPE annotation [<!ENTITY a "AAAA">]>'
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: expected no declarations"):
            load(voc, (head + BOX.replace("<pose>Left", "<pose>细")).encode("gbk"))

    def test_an_encoding_that_is_not_declared(self, voc):
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: .*not UTF-8.*encoding="):
            load(voc, BOX.replace("cat", "细胞").encode("gbk"))

    def test_bytes_that_the_declared_encoding_does_not_have(self, voc):
        head = b"<?xml version='1.0' encoding='gbk'?>"
        with pytest.raises(ValueError, match=r"two\.xml: broken XML: 'gb18030' codec"):
            load(voc, head + BOX.encode().replace(b"Left", b"\xff\xff"))


class TestVOC:
    @pytest.mark.parametrize(
        "old, new, message",
        [
            ("annotation>", "html>", "the root tag must be <annotation>, got <html>"),
            ("<size>", "<size/><size>", "<annotation> must have one <size>, got 2"),
            ("<width>", "<width>9</width><width>", "<size> must have one <width>, got 2"),
            ("<name>", "<name>dog</name><name>", "<object> must have one <name>, got 2"),
            ("<bndbox>", "<bndbox/><bndbox>", "<object> must have one <bndbox>, got 2"),
            ("<xmin>", "<xmin>5</xmin><xmin>", "<bndbox> must have one <xmin>, got 2"),
            ("<difficult>", "<difficult/><difficult>", "<object> must have one <difficult>"),
            ("<xmin>1", "<xmin>1<b/>2", "<xmin> must hold text, got <b>"),
            ("<name>cat", "<name>cat<b/>", "<name> must hold text, got <b>"),
            ("<xmax>9", "<xmax>1e9", "<xmax> must be within .*16777216, got '1e9'"),
            ("<xmax>9", "<xmax>-1e308", "<xmax> must be within"),
            ("<xmax>9", "<xmax>1e400", "<xmax> must be a number, got '1e400'"),
            ("<xmax>9", f"<xmax>{LONG}", "<xmax> must be a number, got '999.*"),
            ("<xmax>9", "<xmax>1_0", "<xmax> must be a number, got '1_0'"),
            ("<xmax>9", "<xmax>0x9", "<xmax> must be a number, got '0x9'"),
            ("<width>40", "<width>-40", "<width> must be a whole number of pixels, got -40"),
            ("<width>40", "<width>40.5", "<width> must be a whole number of pixels, got 40.5"),
            ("<width>40", "<width>1e300", "<width> must be within"),
            ("<difficult>0", "<difficult>no", "<difficult> must be a number, got 'no'"),
        ],
    )
    def test_refused_tags(self, voc, old, new, message):
        assert old in BOX
        with pytest.raises(ValueError, match=rf"two\.xml: {message}") as caught:
            load(voc, BOX.replace(old, new))
        assert len(str(caught.value)) < 1000

    def test_a_long_name(self, voc):
        with pytest.raises(ValueError, match=r"two\.xml, object 1: unknown class 'AAA") as caught:
            load(voc, BOX.replace("cat", "A" * 1_000_000))
        assert len(str(caught.value)) < 1000

    def test_file_names_in_annotations_are_not_looked_at(self, voc):
        names = "<folder>/etc</folder><filename>../../etc/passwd</filename><path>/etc/passwd</path>"
        record = load(voc, BOX.replace("<size>", names + "<size>"))
        assert record["file_name"] == str(voc.root / "JPEGImages" / "two.jpg")

    @pytest.mark.parametrize(
        "text",
        ["../out", "/out", "a/../../out", "..", "two\0", "\0" * 9, "a" * 10_000],
    )
    def test_refused_ids(self, voc, text):
        (voc.root / "out.xml").write_text(BOX)  # what ../out would reach
        save_image(voc.root / "out.jpg")
        voc.split("test", f"two\n{text}\n")
        with pytest.raises(ValueError, match=r"test\.txt: expected image ids that are file names"):
            load_voc(str(voc.root), "test", ["cat"])

    def test_ids_in_utf_16_and_in_subfolders(self, voc):
        (voc.root / "ImageSets/Main/test.txt").write_bytes("two\n".encode("utf-16"))
        with pytest.raises(ValueError, match=r"test\.txt: expected image ids .* in UTF-8, got"):
            read_split(str(voc.root), "test")
        voc.split("test", "a/..b\n")
        assert read_split(str(voc.root), "test") == ["a/..b"]

    def test_large_split(self, voc, monkeypatch):
        monkeypatch.setattr(voc_split, "MAX_SPLIT", 5)
        voc.split("test", "two\ntwo\n")
        with pytest.raises(ValueError, match=r"test\.txt: expected at most 5 characters"):
            read_split(str(voc.root), "test")

    def test_a_split_that_is_no_file(self, voc):
        path = voc.root / "ImageSets/Main/pipe.txt"
        os.mkfifo(path)
        with pytest.raises(FileNotFoundError, match=r"pipe\.txt: no such split"):
            read_split(str(voc.root), "pipe")


def png(width, height):
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


class TestImages:
    @pytest.mark.parametrize("data", [b"", b"no image", png(50_000, 50_000), png(0, 9)], ids=len)
    def test_no_image_where_the_size_is_needed(self, tmp_path, data):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(OSError, match=r"^\S+/a\.png: expected an image, got: \S+"):
            image_size(str(tmp_path / "a.png"))

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_broken_exif_is_ignored_as_by_detectron2(self, tmp_path):
        # Pillow looks for EXIF at a PNG's end and finds it cut off.
        (tmp_path / "a.png").write_bytes(png(40, 30)[:-12])
        assert image_size(str(tmp_path / "a.png")) == (40, 30)

    def mapped(self, voc, *box, size=(40, 30)):
        record = load(voc, xml(xml_object("cat", box), size=size))
        cfg = get_cfg()
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (30,), "none"
        return DatasetMapper(cfg, True)(record)["instances"].gt_boxes.tensor.tolist()

    def test_boxes_beyond_the_image_are_clipped_in_training(self, voc):
        assert self.mapped(voc, -5, -5, 9, 9) == [[0, 0, 9, 9]]
        assert self.mapped(voc, 35, 25, 100, 1e7) == [[34, 24, 40, 30]]
        assert self.mapped(voc, 100, 100, 200, 200) == []

    def test_another_size_than_the_annotation_says(self, voc):
        with pytest.raises(SizeMismatchError, match=r"two\.jpg, got \(40, 30\), expect \(50, 30\)"):
            self.mapped(voc, 1, 1, 9, 9, size=(50, 30))

    def test_truncated_and_oversized_images_are_errors_in_training(self, voc):
        path = voc.root / "JPEGImages" / "two.jpg"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(OSError, match="(?i)truncated"):
            self.mapped(voc, 1, 1, 9, 9)
        path.write_bytes(png(50_000, 50_000))
        with pytest.raises(Image.DecompressionBombError):
            self.mapped(voc, 1, 1, 9, 9)


def coco_text(annotations):
    """A file whose annotations are a text that json.dumps would not write."""
    head = json.dumps({"images": [IMAGE], "categories": CATEGORIES})
    return f'{head[:-1]}, "annotations": {annotations}}}'.encode()


def changed(base, key, values, message):
    """Parts of a file with each of `values` in place of the key of its only image or annotation."""
    part = "images" if base is IMAGE else "annotations"
    return [({part: [{**base, key: value}]}, message) for value in values]


NO_NUMBERS = ("40", True, None, math.nan, math.inf, [40], 10**400)
REFUSED_COCO = [
    *changed(
        IMAGE, "width", (*NO_NUMBERS, 0, -40, 40.5, 1e9), r"images\[0\]: width must be a whole"
    ),
    *changed(IMAGE, "height", (*NO_NUMBERS, 0), r"images\[0\]: height must be a whole number"),
    *changed(
        IMAGE,
        "file_name",
        (3, None, ["a.jpg"], "", "../h.json", "/etc/passwd", "b/../a.jpg", "a\0.jpg"),
        r"images\[0\]: file_name must be a path below the folder of images, got",
    ),
    *changed(IMAGE, "id", ("", True, None, [1], 1.5, math.nan, 10**30), r"images\[0\]: id must be"),
    ({"images": [IMAGE, {**IMAGE, "width": 9}]}, r"images\[1\]: id must be another than .*\[0\]"),
    ({"images": [IMAGE, {**IMAGE, "id": "2"}]}, "images: expected ids of one type"),
    *(({"images": value}, r"images(\[0\])? must be") for value in (3, "x", {}, None, [3], [[1]])),
    *(({"annotations": value}, r"annotations(\[0\])? must be") for value in (3, None, [3], ["x"])),
]
REFUSED_ANNOTATIONS = [
    *changed(ANNOTATION, "id", ("", True, None, [1], {}), r"annotations\[0\].*: id must be"),
    *changed(
        ANNOTATION, "image_id", ("1", True, None, [1], {}), r"annotations\[0\].*: image_id must be"
    ),
    *changed(
        ANNOTATION,
        "category_id",
        ("7", -7, 7.5, math.nan),
        r"annotations\[0\] of image id 1: unknown category_id",
    ),
    *changed(
        ANNOTATION,
        "category_id",
        (True, None, [7], {}),
        r"annotations\[0\].*: category_id must be a category's id",
    ),
    *changed(
        ANNOTATION,
        "bbox",
        ("abcd", 5, {}, [], [True, 1, 2, 3], [1, 1, 10**400, 3], [1, 1, 1e308, 3], [[1, 1, 2, 3]]),
        r"annotations\[0\] of image id 1: bbox must be \[x, y, width, height\]",
    ),
    *changed(ANNOTATION, "iscrowd", ("0", None, 2, 0.5, [0]), "image id 1: iscrowd must be 0 or 1"),
    *changed(ANNOTATION, "area", ("9", -1, math.nan, True), "image id 1: area must be"),
    *changed(ANNOTATION, "segmentation", ("x", 5, [3]), "image id 1: segmentation must be"),
    *changed(ANNOTATION, "keypoints", ("x", 5, ["a"], [math.nan]), "image id 1: keypoints must be"),
]


class TestCOCO:
    @pytest.mark.parametrize("parts, message", REFUSED_COCO)
    def test_refused_when_registered(self, coco, parts, message):
        with pytest.raises(ValueError, match=rf"h\.json: not a COCO json file: {message}") as e:
            coco(**parts)
        assert len(str(e.value)) < 1000
        assert "h" not in DatasetCatalog

    @pytest.mark.parametrize("parts, message", REFUSED_ANNOTATIONS)
    def test_refused_when_loaded_and_when_evaluated(self, coco, parts, message):
        coco(**parts)
        for read in (DatasetCatalog.get, COCOEvaluator):
            with pytest.raises(ValueError, match=rf"h\.json, .*{message}") as e:
                read("h")
            assert len(str(e.value)) < 1000

    @pytest.mark.parametrize(
        "category, message",
        [
            ({"id": True, "name": "cat"}, r"categories\[0\]: id must be"),
            ({"id": None, "name": "cat"}, r"categories\[0\]: id must be"),
            ({"id": 7.5, "name": "cat"}, r"categories\[0\]: id must be"),
            ({"id": [7], "name": "cat"}, r"categories\[0\]: id must be"),
            ({"id": "7", "name": "cat"}, "categories: expected ids of one type"),
            ({"id": 9, "name": "cat"}, r"categories\[1\]: id must be another"),
            ({"id": 7, "name": ""}, r"categories\[0\]: name must be a text"),
            ({"id": 7, "name": 3}, r"categories\[0\]: name must be a text"),
            (7, r"categories\[0\] must be an object"),
        ],
    )
    def test_refused_categories(self, coco, category, message):
        with pytest.raises(ValueError, match=rf"h\.json: not a COCO json file: {message}"):
            coco(categories=[category, {"id": 9, "name": "emu"}])
        assert "h" not in DatasetCatalog

    @pytest.mark.parametrize(
        "raw",
        [
            b"[" * 100_000 + b"]" * 100_000,
            coco_text("[" * 5000 + "]" * 5000),
            coco_text(f"[{LONG}]"),
            b"",
            b"\0" * 100,
            coco_text("[]").decode().encode("utf-16")[:-1],
            coco_text("[]").replace(b"cat", b"\xe9"),
            coco_text("[]")[:-10],
            coco_text("[]") + b"x",
        ],
        ids=range(9),
    )
    def test_broken_files(self, coco, raw):
        with pytest.raises(ValueError, match=r"h\.json: not a COCO json file: \S+"):
            coco(raw)
        assert "h" not in DatasetCatalog

    def test_infinite_coordinate(self, coco):
        box = '[{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 1e400, 3]}]'
        coco(coco_text(box))
        with pytest.raises(ValueError, match=r"h\.json, .*bbox must be .*got \[1, 1, inf, 3\]"):
            DatasetCatalog.get("h")

    @pytest.mark.parametrize("number", [1, -5, "one"])
    def test_ids_may_be_any_whole_number_or_text(self, coco, number):
        parts = {**ANNOTATION, "image_id": number, "id": number}
        coco(images=[{**IMAGE, "id": number}], annotations=[parts])
        (record,) = DatasetCatalog.get("h")
        assert record["image_id"] == number and len(record["annotations"]) == 1

    def test_annotations_of_other_images_are_left_out(self, coco, tmp_path, caplog):
        coco(annotations=[ANNOTATION, {"id": 2, "image_id": 99, "category_id": 8}])
        assert len(DatasetCatalog.get("h")[0]["annotations"]) == 1
        assert "1 annotation of images that the file lacks (first: " in caplog.text
        assert len(COCOEvaluator("h", output_dir=str(tmp_path))._coco_api.anns) == 1

    @pytest.mark.parametrize("number", [0, -1, "x"])
    def test_the_id_of_an_annotation_does_not_change_ap(self, coco, tmp_path, number):
        """pycocotools notes a match by the annotation's id, where 0 stands for none."""
        coco(annotations=[annotation(number, 7, [1, 2, 10, 5])])
        evaluator = COCOEvaluator("h", output_dir=str(tmp_path))
        evaluator.reset()
        found = Instances((30, 40))
        found.pred_boxes = Boxes(torch.tensor([[1.0, 2, 11, 7]]))
        found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([1])
        evaluator.process([{"image_id": 1}], [{"instances": found}])
        assert evaluator.evaluate()["bbox"]["AP-cat"] == pytest.approx(100)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


class TestConfig:
    @pytest.mark.parametrize(
        "change, message",
        [
            ({"name": "a\nb"}, r'REGISTER\[0\], key "name": expected .* printable .*\'a\\nb\''),
            ({"name": "a" * 201}, 'key "name": expected at most 200'),
            ({"classes": [" "]}, 'key "classes": expected a list of class names'),
            ({"classes": nested(100_000)}, 'key "classes": expected a list of class names'),
            ({"split": ["x" * 1_000_000]}, 'key "split": expected a string'),
            ({"year": 10**5000}, 'key "year": expected 2007 or 2012, got'),
            ({"x" * 1_000_000: 1}, 'unknown key "xxx'),
        ],
        ids=range(7),
    )
    def test_refused_entries(self, voc, change, message):
        with pytest.raises(ValueError, match=message) as caught:
            register_datasets([{**voc.entry("h", "test"), **change}])
        assert len(str(caught.value)) < 1000
        assert "h" not in DatasetCatalog

    def test_unreachable_address(self, voc):
        entry = {**voc.entry("h", "test"), "root": "http://127.0.0.1:9/x"}
        with pytest.raises(FileNotFoundError, match=r'\(h\), key "root": expected .*127\.0\.0\.1'):
            register_datasets([entry])

    @pytest.mark.parametrize("name", [3, None, ["a"], {"a": 1}])
    def test_names_of_data_sets(self, name):
        cfg = get_cfg()
        cfg.DATASETS.TRAIN = (name,)
        with pytest.raises(ValueError, match="DATASETS.TRAIN and .*: expected names, got"):
            check_classes(cfg)

    @pytest.mark.parametrize(
        "key, values",
        [
            ("interval", ("abc", 1e9, 10**9, 10**5000, True, math.nan, 2.0, None, [5], -5)),
            ("min_weight", ("0.5", True, math.nan, math.inf, None, [0.5], 0.5j, -1, 10**400)),
            ("variant", (3, None, ["ALWA_1"], {"a": 1}, "alwa_1", "x" * 1_000_000)),
            ("rule", (3, None, ["authors"], {"a": 1}, "Authors")),
        ],
    )
    def test_alwa(self, key, values):
        for value in values:
            with pytest.raises(ValueError, match=rf"{key} \(MODEL\.ALWA\.{key.upper()}\): ") as e:
                ALWA(**{key: value})
            assert len(str(e.value)) < 1000

    @pytest.mark.parametrize(
        "weights",
        [
            3,
            None,
            "12",
            ["1", "2"],
            [[1.0], [2.0]],
            [True, 1.0],
            [None, 1.0],
            [1j, 1.0],
            [10**400, 1],
            [1e39, 1.0],  # infinity as float32
            {1.0: 1, 2.0: 2},
            [1.0] * 100_000,
        ],
        ids=range(12),
    )
    def test_fixed(self, weights):
        message = r"weights \(MODEL\.LOSS_WEIGHTER\.WEIGHTS\): expected two finite numbers"
        with pytest.raises(ValueError, match=message) as caught:
            Fixed(weights=weights)
        assert len(str(caught.value)) < 1000

    @pytest.mark.parametrize("name", [3, None, ["ALWA"]])
    def test_name_of_the_weighter(self, name):
        cfg = get_cfg()
        add_alwa_config(cfg)
        cfg.MODEL.LOSS_WEIGHTER.NAME = name
        with pytest.raises(ValueError, match="LOSS_WEIGHTER.NAME: expected one of ALWA, CoV"):
            build_loss_weighter(cfg, "a", "b")


@pytest.mark.parametrize(
    "value", [nested(100_000), "x" * 10**6, 10**5000, {"a": [1.5, None]}], ids=range(4)
)
def test_show_is_short(value):
    assert 0 < len(show(value)) < 400


def test_show_is_repr_for_what_is_short():
    for value in ({"a": [1.5, None]}, "it's", [True, (1, 2)], math.nan):
        assert show(value) == repr(value)
