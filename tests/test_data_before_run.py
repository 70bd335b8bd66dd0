"""Data sets are looked at before a run; what still fails in a data loader names the image."""

import logging
import pickle
from types import SimpleNamespace

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import DataLoader

from alwa_d2 import add_alwa_config
from alwa_d2.data.mapper import ImageError, NamingMapper, build_mapper
from alwa_d2.engine import Trainer, data_check, train_model
from alwa_d2.engine.data_check import check_before_run
from alwa_d2.errors import UserError

SETS = ("before_train", "before_test")


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A config of two sets of two images each, `before_train` and `before_test`."""
    monkeypatch.setattr(data_check, "_checked", set())
    for name in SETS:
        DatasetCatalog.register(name, lambda name=name: records(tmp_path, name))
        MetadataCatalog.get(name).set(thing_classes=["cat"], evaluator_type="coco")
        for record in records(tmp_path, name):
            Image.effect_noise((40, 30), 90).convert("RGB").save(record["file_name"])
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = SETS[:1], SETS[1:]
    cfg.OUTPUT_DIR = str(tmp_path)
    yield cfg
    for name in SETS:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def records(folder, name):
    box = {"category_id": 0, "bbox": [4, 4, 30, 20], "bbox_mode": BoxMode.XYXY_ABS}
    return [
        {
            "file_name": str(folder / f"{name}{number}.jpg"),
            "image_id": number,
            "width": 40,
            "height": 30,
            "annotations": [dict(box)],
        }
        for number in range(2)
    ]


def cut(folder, name):
    """Cuts a set's first image off."""
    path = folder / f"{name}0.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    return path


def messages(caplog, level):
    return [entry.getMessage() for entry in caplog.records if entry.levelno == level]


def test_a_run_goes_on_where_all_is_well(cfg, caplog):
    with caplog.at_level(logging.INFO, "alwa_d2"):
        check_before_run(cfg, training=True)
    (summary,) = messages(caplog, logging.INFO)
    assert summary.endswith(
        "before_train 2 images, 2 boxes; before_test 2 images, 2 boxes; 0 errors, 0 warnings"
    )


@pytest.mark.parametrize("name", SETS)
def test_an_error_in_training_or_test_set_ends_the_run_before_the_model_is_made(
    cfg, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(Trainer, "build_model", lambda *_: pytest.fail("a model was made"))
    path = cut(tmp_path, name)
    with pytest.raises(UserError) as error:
        Trainer(cfg)
    assert str(error.value).startswith(f"{path}: Pillow: image file is truncated")
    assert "INPUT.LOAD_TRUNCATED True" in str(error.value)
    assert "DATASETS.CHECK False" in str(error.value)


def test_an_error_in_a_test_set_ends_an_evaluation_before_the_model_is_made(
    cfg, tmp_path, monkeypatch
):
    monkeypatch.setattr(Trainer, "build_model", lambda *_: pytest.fail("a model was made"))
    path = cut(tmp_path, "before_test")
    (tmp_path / "weights.pth").touch()
    args = arguments(tmp_path, "MODEL.WEIGHTS", str(tmp_path / "weights.pth"), eval_only=True)
    with pytest.raises(UserError, match=f"^{path}: Pillow: image file is truncated"):
        train_model(args)


def arguments(folder, *opts, eval_only=False, resume=False):
    sets = ["DATASETS.TRAIN", SETS[:1], "DATASETS.TEST", SETS[1:], "OUTPUT_DIR", str(folder)]
    opts = [*sets, "MODEL.ROI_HEADS.NUM_CLASSES", 1, "MODEL.DEVICE", "cpu", *opts]
    return SimpleNamespace(config_file="", opts=opts, resume=resume, eval_only=eval_only)


@pytest.mark.parametrize(
    "opts, flags, words",
    [
        (("DATASETS.TRAIN", ()), {}, "DATASETS.TRAIN: expected at least one data set"),
        (("MODEL.WEIGHTS", "no.pth"), {}, "MODEL.WEIGHTS: expected a checkpoint, got no.pth"),
        ((), {"eval_only": True}, "MODEL.WEIGHTS: expected the checkpoint of a trained .* got ''"),
        (("MODEL.WEIGHTS", "no.pth"), {"eval_only": True}, "got no.pth, which is no file"),
        ((), {"eval_only": True, "resume": True}, "MODEL.WEIGHTS: expected the checkpoint"),
    ],
)
def test_what_a_config_lacks_is_told_before_data_are_looked_at_and_a_model_is_made(
    cfg, tmp_path, monkeypatch, opts, flags, words
):
    monkeypatch.setattr(data_check, "check_data", lambda *_, **__: pytest.fail("looked"))
    monkeypatch.setattr(Trainer, "build_model", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(UserError, match=words):
        train_model(arguments(tmp_path, *opts, **flags))


def test_an_evaluation_looks_at_test_sets_alone(cfg, tmp_path):
    cut(tmp_path, "before_train")
    check_before_run(cfg, training=False)
    with pytest.raises(UserError, match="before_train0.jpg"):
        check_before_run(cfg, training=True)


def test_what_was_looked_at_is_not_looked_at_again(cfg, tmp_path, monkeypatch):
    """Evaluations during training cost nothing."""
    check_before_run(cfg, training=True)
    monkeypatch.setattr(data_check, "check_data", lambda *_, **__: pytest.fail("looked again"))
    check_before_run(cfg, training=False)
    check_before_run(cfg, training=True)


def test_what_failed_is_looked_at_again(cfg, tmp_path):
    path = cut(tmp_path, "before_test")
    for _ in range(2):
        with pytest.raises(UserError):
            check_before_run(cfg, training=True)
    Image.new("RGB", (40, 30)).save(path)
    check_before_run(cfg, training=True)


def test_a_key_turns_it_off(cfg, tmp_path, monkeypatch):
    cut(tmp_path, "before_train")
    cfg.DATASETS.CHECK = False
    monkeypatch.setattr(data_check, "check_data", lambda *_, **__: pytest.fail("looked"))
    check_before_run(cfg, training=True)


def test_warnings_are_one_line_a_kind(cfg, caplog):
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    check_before_run(cfg, training=True)
    (line,) = messages(caplog, logging.WARNING)
    assert line.startswith("2 test images in training, too; ")
    assert "before_train0.jpg" in line


def test_many_errors_are_counted_and_the_first_shown(cfg, tmp_path, caplog):
    many = records(tmp_path, "before_train") * 3
    for record in many:
        record["width"] = 41
    DatasetCatalog.remove("before_train")
    DatasetCatalog.register("before_train", lambda: many)
    with pytest.raises(UserError, match=r"\(6 errors in all, told in the log\)"):
        check_before_run(cfg, training=True)
    lines = messages(caplog, logging.ERROR)
    assert len(lines) == 4
    assert lines[-1] == "... and 3 more images of another size than annotated"


def test_other_processes_get_the_main_ones_verdict(cfg, monkeypatch):
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(data_check, "check_data", lambda *_, **__: pytest.fail("looked, too"))
    verdict = UserError("a verdict")
    monkeypatch.setattr(comm, "all_gather", lambda own: [verdict, own])
    with pytest.raises(UserError, match="a verdict"):
        check_before_run(cfg, training=True)
    monkeypatch.setattr(comm, "all_gather", lambda own: [None, own])
    check_before_run(cfg, training=True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_train", [False, True])
def test_an_error_in_a_data_loader_names_the_image(cfg, tmp_path, workers, is_train):
    path = cut(tmp_path, "before_train")
    data = records(tmp_path, "before_train")
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (30,), 30
    mapper = build_mapper(cfg, is_train)
    loader = DataLoader(Mapped(data, mapper), None, num_workers=workers)
    with pytest.raises(ImageError) as error:
        list(loader)
    message = str(error.value)
    assert "\n" not in message and "Traceback" not in message
    assert message.startswith(f"{path}: image file is truncated (")
    assert message.endswith("INPUT.LOAD_TRUNCATED True")

    cfg.INPUT.LOAD_TRUNCATED = True
    loader = DataLoader(Mapped(data, build_mapper(cfg, is_train)), None, num_workers=workers)
    assert [item["image"].shape for item in loader] == [(3, 30, 40)] * 2


class Mapped:
    """A data set of PyTorch's: records and what makes inputs of them."""

    def __init__(self, data, mapper):
        self.data, self.mapper = data, mapper

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.mapper(self.data[index])


def test_any_error_of_a_mapper_names_the_image():
    def fails(record):
        raise AssertionError

    with pytest.raises(ImageError) as error:
        NamingMapper(fails, False)({"file_name": "a.jpg"})
    assert str(error.value) == (
        "a.jpg: AssertionError; alwa-d2 check-data --decode looks at all images"
    )
    assert isinstance(error.value.__cause__, AssertionError)


def test_an_error_in_a_data_loader_ends_a_command_with_1_from_any_process():
    """What was asked for had begun. Errors of started processes come back pickled."""
    error = pickle.loads(pickle.dumps(ImageError("a.jpg: no image")))
    assert (type(error), str(error), error.status) == (ImageError, "a.jpg: no image", 1)
    assert UserError.status == 2


def test_the_trainers_loaders_have_that_mapper(cfg, tmp_path):
    path = cut(tmp_path, "before_test")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.SOLVER.IMS_PER_BATCH = (30,), 1
    with pytest.raises(ImageError, match=str(path)):
        list(Trainer.build_test_loader(cfg, "before_test"))
    cfg.DATASETS.TRAIN = ("before_test",)
    batches = iter(Trainer.build_train_loader(cfg))
    with pytest.raises(ImageError, match=str(path)):
        for _ in range(2):
            next(batches)
