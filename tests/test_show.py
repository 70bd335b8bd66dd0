"""`alwa-d2 show`, and the detections that it draws; the model is a stand-in."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from boxes_by_hand import A, B, instances
from conftest import REPO
from PIL import Image

from alwa_d2.analysis import detections
from alwa_d2.analysis.images import read, spread
from alwa_d2.cli.main import main
from alwa_d2.errors import UserError

CONFIG = str(REPO / "configs" / "retina_alwa.yaml")


def test_images_are_evenly_spread():
    assert spread(9, 3) == [0, 4, 8]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(5, 1) == [0]
    assert len(spread(200, 8)) == 8


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.effect_noise((40, 30), 90).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=f"^{path}: image file is truncated"):
        read(str(path), "RGB")


def test_samples_come_from_data_set_and_predictor(tmp_path, monkeypatch):
    from detectron2.data import DatasetCatalog
    from detectron2.structures import BoxMode

    Image.new("RGB", (160, 100), (255, 0, 0)).save(tmp_path / "red.png")
    box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    record = {"file_name": str(tmp_path / "red.png"), "image_id": 7, "height": 100, "width": 160}
    record["annotations"] = [box, {**box, "iscrowd": 1}]

    def predict(path):
        assert path == record["file_name"]
        return instances([A, B], [1, 1], [0.5, 0.49])

    monkeypatch.setattr(detections, "load_predictor", lambda cfg: predict)
    cfg = SimpleNamespace(MODEL=SimpleNamespace(WEIGHTS=str(tmp_path / "red.png")))
    DatasetCatalog.register("one_red_image", lambda: [record])
    try:
        (sample,) = detections.load_samples(cfg, "one_red_image", 8, 0.5)
    finally:
        DatasetCatalog.remove("one_red_image")
    assert sample.name == "7" and sample.image[0, 0].tolist() == [255, 0, 0]
    assert sample.truth.gt_boxes.tensor.tolist() == [A] and sample.truth.gt_classes.tolist() == [1]
    assert sample.found.scores.tolist() == [0.5]


@pytest.mark.parametrize(
    "form, seen",
    [("BGR", [[0, 0, 255]]), ("RGB", [[255, 0, 0]]), ("L", [[76]])],  # L is 0.299 of red
)
def test_the_model_gets_the_pixels_in_its_own_format(form, seen, tmp_path, monkeypatch):
    """A red image of 40 x 20, resized to 20 x 10; the model gives the whole of it as a box."""
    from alwa_d2.engine import setup_cfg

    class Stand(torch.nn.Module):
        def forward(self, inputs):
            (given,) = inputs
            assert given["image"].shape == (len(seen[0]), 10, 20)
            assert given["image"][:, 0, 0].tolist() == seen[0]
            assert (given["height"], given["width"]) == (20, 40)
            return [{"instances": instances([[0, 0, 40, 20]], [0], [0.9], size=(20, 40))}]

    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "red.png")
    monkeypatch.setattr(detections, "build_model", lambda cfg: Stand())
    opts = ["INPUT.FORMAT", form, "INPUT.MIN_SIZE_TEST", "10", "DATASETS.TRAIN", "()"]
    each = str([1.0] * len(seen[0]))  # the stand-in has no use for them
    opts += ["DATASETS.TEST", "()", "MODEL.PIXEL_MEAN", each, "MODEL.PIXEL_STD", each]
    cfg = setup_cfg(CONFIG, opts).clone()
    cfg.defrost()
    torch.save({"model": {}}, tmp_path / "none.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "none.pth")
    found = detections.load_predictor(cfg)(str(tmp_path / "red.png"))
    assert found.pred_boxes.tensor.tolist() == [[0, 0, 40, 20]]


@pytest.mark.parametrize(
    "options, message",
    [
        (["MODEL.WEIGHTS", "nowhere.pth"], "got nowhere.pth, which is no file"),
        ([], "MODEL.WEIGHTS: expected the checkpoint of a trained model, got ''"),
        (["--dataset", "unheard_of"], "data set 'unheard_of' is not registered"),
        (["NO.KEY", "1"], "Non-existent key: NO.KEY"),
        (["MODEL.WEIGHTS"], "odd length"),
    ],
)
def test_mistakes_with_detections_are_one_line_and_exit_code_2(options, message, capsys):
    arguments = ["--config-file", CONFIG, *options]
    assert main(["show", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("alwa-d2 show: ") and message in error


@pytest.mark.parametrize("text", ["nan", "2", "-0.1", "half"])
def test_scores_that_no_detection_can_have_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["show", "--score-thresh", text])
    assert f"--score-thresh: expected a number from 0 to 1, got {text}" in capsys.readouterr().err


def test_weights_that_are_no_checkpoint_or_another_models_are_refused(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"model": {"head.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    for name, message in (
        ("text.pth", "expected a checkpoint, got a file that begins with b'no checkpoint'"),
        ("other.pth", "expected a checkpoint of this model to evaluate"),
    ):
        arguments = ["--config-file", CONFIG, "MODEL.WEIGHTS", str(tmp_path / name)]
        assert main(["show", *arguments]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("alwa-d2 show: ") and f"{name}: {message}" in error


def test_number_of_images_is_checked(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["show", "--config-file", CONFIG, "--num-images", "0"])
    assert stopped.value.code == 2
    assert "expected at least 1, got 0" in capsys.readouterr().err
