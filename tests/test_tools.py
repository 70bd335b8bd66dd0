"""The tools on runs, boxes and pictures made by hand; no training, no model."""

import importlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import REPO
from PIL import Image

MODULES = {
    "plot_losses": "cli.plot",
    "show_detections": "cli.show",
    "sweep": "cli.sweep",
    "diagnose": "cli.diagnose",
    "sweep_plan": "sweep.plan",
    "sweep_jobs": "sweep.jobs",
    "sweep_table": "sweep.table",
}


def load(name):
    return importlib.import_module(f"alwa_d2.{MODULES.get(name, f'analysis.{name}')}")


runs = load("runs")
pictures = load("pictures")
curves = load("curves")
loss_panels = load("loss_panels")
plot_losses = load("plot_losses")

WEIGHTS = [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]  # classification, every 20 iterations


def config(name="ALWA", rule="authors", interval=50, **alwa):
    alwa = {"VARIANT": "ALWA_2", "RULE": rule, "INTERVAL": interval, **alwa}
    return {"MODEL": {"LOSS_WEIGHTER": {"NAME": name}, "ALWA": alwa}}


def records(pairs=("cls", "box_reg"), statistics=True):
    """Lines of a run of 200 iterations; the weight of the first loss falls at iteration 100."""
    lines = []
    for index, weight in enumerate(WEIGHTS):
        line = {"iteration": 20 * index + 19, "lr": 0.01}
        for place, name in enumerate(pairs):
            loss, factor = (place + 1) / (index + 1), weight if place == 0 else 1.0
            line[f"unweighted/loss_{name}"] = loss
            line[f"loss_{name}"] = factor * loss
            line[f"alwa/weight_{name}"] = factor
            if statistics and index >= 2:  # the first window ends in iteration 49
                line[f"alwa/stat_{name}"] = 0.1 * (place + 1)
        lines.append(line)
    return lines + [{"iteration": 200, "bbox/AP": 40.25, "bbox/AP50": 71.5, "bbox/AP75": 39.0}]


def write_run(folder, lines=None, settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    lines = records() if lines is None else lines
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings or config()))
    return folder


def drawn(axes, gid):
    """Coordinates of the lines with this id: [(x, y), ...]."""
    lines = [line for line in axes.lines if line.get_gid() == gid]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_losses_are_drawn_as_logged(tmp_path):
    figure = plot_losses.make_figure([runs.load_run(write_run(tmp_path / "a"))])
    losses, weights, statistics = figure.axes
    iterations = list(range(19, 200, 20))
    for key in ("loss_cls", "loss_box_reg", "unweighted/loss_cls", "unweighted/loss_box_reg"):
        (points,) = drawn(losses, f"points {key}")
        assert points == (iterations, [line[key] for line in records()[:-1]])
    styles = {line.get_gid(): line for line in losses.lines}
    weighted, unweighted = styles["median loss_cls"], styles["median unweighted/loss_cls"]
    assert (unweighted.get_linestyle(), weighted.get_linestyle()) == ("-", "--")
    assert unweighted.get_color() == weighted.get_color()
    assert styles["median loss_box_reg"].get_color() != weighted.get_color()
    assert losses.get_title() == "a\nALWA_2, rule authors, C = 50 iterations\nAP 40.2, AP50 71.5"
    # Values from 0.05 to 2 span more than a decade.
    assert losses.get_yscale() == "log" and weights.get_yscale() == "linear"
    assert statistics.get_xlabel() == "iteration"
    labels = {text.get_text() for text in losses.get_legend().get_texts()}
    assert labels == {
        *("classification, unweighted", "classification, weighted"),
        *("box, unweighted", "box, weighted"),
    }


def test_a_narrow_range_keeps_its_linear_axis(tmp_path):
    lines = records()[:4]
    figure = plot_losses.make_figure([runs.load_run(write_run(tmp_path / "a", lines))])
    assert figure.axes[0].get_yscale() == "linear"


def test_weights_and_statistics_step_at_the_updates(tmp_path):
    figure = plot_losses.make_figure([runs.load_run(write_run(tmp_path / "a"))])
    _, weights, statistics = figure.axes
    # Logged first in iteration 119, but it can only have changed at 100.
    expected = [0, 19, 39, 59, 79, 99, 100, 139, 159, 179, 199]
    assert drawn(weights, "alwa/weight_cls") == [(expected, [1.0, *WEIGHTS])]
    (line,) = (line for line in weights.lines if line.get_gid() == "alwa/weight_cls")
    assert line.get_drawstyle() == "steps-post"
    for axes in (weights, statistics):
        assert [x for x, _ in drawn(axes, "kept")] == [[50, 50], [150, 150], [200, 200]]
        assert [x for x, _ in drawn(axes, "changed")] == [[100, 100]]
    # Logged first in iteration 59, and known since the first window's end.
    expected = [50, *range(79, 200, 20)]
    assert drawn(statistics, "alwa/stat_box_reg") == [(expected, [0.2] * 8)]


def test_a_weight_logged_right_after_its_update_is_put_there():
    iterations, values = np.array([19.0, 39, 59]), np.array([1.0, 0.7, 0.7])
    assert curves.step_positions(iterations, values, 20).tolist() == [19, 40, 59]
    # No multiple of the interval lies between the two lines: it stays where it was logged.
    assert curves.step_positions(iterations, values, 100).tolist() == [19, 39, 59]


def test_fixed_weights_have_no_marks_and_no_statistics(tmp_path):
    folder = write_run(tmp_path / "a", records(statistics=False), config("Fixed"))
    figure = plot_losses.make_figure([runs.load_run(folder)])
    losses, weights = figure.axes
    assert drawn(weights, "kept") == drawn(weights, "changed") == []
    assert drawn(weights, "alwa/weight_cls")[0][0] == list(range(19, 200, 20))
    assert "Fixed weights 0.5 : 1\nAP 40.2" in losses.get_title()


def test_several_runs_stand_side_by_side(tmp_path):
    first = write_run(tmp_path / "first", settings=config(rule="balance"))
    second = write_run(tmp_path / "second", records(statistics=False), config("Fixed"))
    both = [runs.load_run(folder) for folder in (first, second)]
    figure = plot_losses.make_figure(both, title="two rules")
    assert len(figure.axes) == 5  # the second has no statistics
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title.split("\n")[0] for title in titles] == ["first", "second"]
    assert "unweighted loss" in next(
        axes.get_ylabel() for axes in figure.axes if axes.get_ylabel().startswith("S =")
    )
    assert figure.get_suptitle() == "two rules"


@pytest.mark.parametrize("fixed_first", [True, False])
def test_statistics_have_numbers_wherever_they_stand(tmp_path, fixed_first):
    fixed = [constant(tmp_path / f"f{i}", 1.0, 1.0) for i in range(4)]
    alwa = runs.load_run(write_run(tmp_path / "alwa"))
    given = [fixed[0], alwa] if fixed_first else [alwa, *fixed]  # the latter in two lines
    figure = plot_losses.make_figure(given)
    (statistics,) = [axes for axes in figure.axes if axes.get_ylabel().startswith("S =")]
    figure.draw_without_rendering()
    assert any(
        tick.label1.get_visible() and tick.label1.get_text()
        for tick in statistics.yaxis.get_major_ticks()
    )


def test_scales_of_many_runs_stand_below_each_other(tmp_path):
    given = [constant(tmp_path / f"f{i}", 1.0, 1.0) for i in range(3)]
    figure = loss_panels.make_scales([*given, larger(given[0])])
    assert len(figure.axes) == 8 and figure.get_figwidth() < 25
    assert len({axes.get_ylim() for axes in figure.axes if axes.get_ylabel()}) == 1


def test_pictures_are_png_files(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    with pytest.raises(SystemExit):
        plot_losses.main([str(folder), "--output", str(tmp_path / "a.pdf")])
    assert "--output: expected a name that ends in .png, got " in capsys.readouterr().err
    assert not (tmp_path / "a.pdf").exists()


def test_pairs_of_losses_are_found_by_their_weights(tmp_path):
    folder = write_run(tmp_path / "a", records(("rpn_loc", "box_reg", "new", "cls", "rpn_cls")))
    run = runs.load_run(folder)
    assert run.losses == ["cls", "box_reg", "rpn_cls", "rpn_loc", "new"]
    losses, weights, _ = plot_losses.make_figure([run]).axes
    assert drawn(losses, "points loss_new") and drawn(weights, "alwa/weight_rpn_loc")


def test_after_a_resume_the_later_line_wins(tmp_path):
    again = [{**line, "loss_cls": 9.0} for line in records()[6:9]]
    run = runs.load_run(write_run(tmp_path / "a", records() + again))
    iterations, values = run.series["loss_cls"]
    assert iterations.tolist() == list(range(19, 200, 20))
    assert np.flatnonzero(values == 9.0).tolist() == [6, 7, 8]


def test_values_that_are_not_finite_leave_a_gap(tmp_path):
    lines = records()
    lines[3]["loss_cls"], lines[4]["loss_cls"] = float("nan"), float("inf")
    figure = plot_losses.make_figure([runs.load_run(write_run(tmp_path / "a", lines))])
    ((_, medians),) = drawn(figure.axes[0], "median loss_cls")
    assert np.isfinite(medians).all()
    figure.savefig(io.BytesIO())


def test_the_median_keeps_steps_and_is_nan_without_finite_values():
    steps = np.repeat([4.0, 1.0], 20)
    assert np.array_equal(curves.smooth(steps), steps)
    noisy = steps.copy()
    noisy[10] = 100.0
    assert curves.smooth(noisy)[10] == 4.0
    assert np.isnan(curves.smooth(np.full(3, np.nan))).all()


def test_a_line_cut_off_at_the_end_is_left_out_with_a_warning(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    with open(folder / "metrics.json", "a") as file:
        file.write('{"iteration": 219, "loss_c')
    assert plot_losses.main([str(folder)]) == 0
    assert "line 12: cut off" in capsys.readouterr().err
    assert runs.load_run(folder).iterations == 200


def broken_runs():
    good = [json.dumps(line) for line in records()]
    no_pair = [json.dumps({"iteration": 19, "loss_cls": 1.0, "total_loss": 1.0})]
    half = [json.dumps({"iteration": 19, "loss_cls": 1.0, "alwa/weight_cls": 1.0})]
    return {
        "empty": ([], "metrics.json: empty"),
        "one cut line": (['{"iterat'], "line 1: not JSON"),
        "corrupt": ([*good[:2], "oops", *good[2:]], "line 3: not JSON"),
        "list": ([good[0], "[1, 2]", good[1]], "line 2: expected numbers"),
        "no iteration": ([good[0], '{"lr": 1}', good[1]], "line 2: expected numbers"),
        "text": ([good[0], '{"iteration": 1, "lr": "x"}'], "line 2: expected numbers"),
        "stock": (no_pair, "no line has alwa/weight_<loss>"),
        "half": (half, "no line has unweighted/loss_cls"),
    }


@pytest.mark.parametrize("case", broken_runs())
def test_broken_metrics_are_one_line_and_exit_code_2(case, tmp_path, capsys):
    lines, message = broken_runs()[case]
    folder = write_run(tmp_path / "a")
    (folder / "metrics.json").write_text("\n".join(lines))
    assert plot_losses.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("plot_losses: ") and error.count("\n") == 1
    assert not (folder / "losses.png").exists()


@pytest.mark.parametrize("text", ["MODEL: {ALWA: {}}", "a: [\nb", "just text", ""])
def test_broken_configs_are_one_line_and_exit_code_2(text, tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_text(text)
    assert plot_losses.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert "config.yaml: expected a run's config" in error and error.count("\n") == 1


def test_the_script_draws_without_a_display_and_refuses_other_folders(tmp_path):
    folder = write_run(tmp_path / "a")
    script = [sys.executable, "-m", "alwa_d2.cli.plot"]
    done = subprocess.run([*script, folder, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"plot_losses: {tmp_path}/metrics.json: no such file")
    assert done.stderr.count("\n") == 1
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    done = subprocess.run([*script, folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {folder}/losses.png\n"
    with Image.open(folder / "losses.png") as picture:
        assert picture.width > 600 and picture.height > 600


def test_a_long_run_makes_a_small_picture_where_output_says(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for index in range(1500):
        noise = rng.lognormal(size=4).tolist()
        keys = ("loss_cls", "loss_box_reg", "unweighted/loss_cls", "unweighted/loss_box_reg")
        line = {"iteration": 20 * index + 19, **dict(zip(keys, noise))}
        lines.append({**line, "alwa/weight_cls": noise[0], "alwa/weight_box_reg": 1.0})
    folder, output = write_run(tmp_path / "a", lines), tmp_path / "new" / "b.png"
    assert plot_losses.main([str(folder), "--output", str(output)]) == 0
    assert 10_000 < output.stat().st_size < 300_000
    assert not (folder / "losses.png").exists()


def test_a_picture_is_made_smaller_until_it_fits_and_keeps_its_main_colours(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PNG_BYTES", 20_000)
    red = (213, 94, 0)
    scales = []

    def draw(scale):
        scales.append(scale)
        side = round(256 * scale)
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels[:, :100] = 253  # close to white, and more frequent
        pixels[:2], pixels[2:4] = red, 255
        return Image.fromarray(pixels)

    pictures.save_png(draw, tmp_path / "a.png", (red,))
    assert (tmp_path / "a.png").stat().st_size <= 20_000
    assert scales[0] == 1.0 and len(scales) > 1 and scales == sorted(scales, reverse=True)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(pixels) == round(256 * scales[-1])
    assert (pixels[:2] == red).all() and (pixels[2:4] == 255).all()


@pytest.fixture(scope="module")
def show():
    pytest.importorskip("detectron2", reason="needs Detectron2")
    load("sheet")
    load("equal_recall")
    return load("show_detections")


@pytest.fixture(scope="module")
def sheets(show):
    return sys.modules["sheet"]


def instances(boxes, classes, scores=None, size=(100, 160)):
    """Ground truth, or detections if there are scores."""
    from detectron2.structures import Boxes, Instances

    boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    classes = torch.tensor(classes, dtype=torch.int64)
    if scores is None:
        return Instances(size, gt_boxes=boxes, gt_classes=classes)
    return Instances(size, pred_boxes=boxes, pred_classes=classes, scores=torch.tensor(scores))


A, B = [10, 10, 30, 30], [60, 10, 80, 30]
HALF_A = [10, 10, 30, 20]  # IoU with A: 200 / 400
LESS_A = [10, 10, 30, 19]  # IoU with A: 180 / 400


def test_matching(sheets):
    truth = instances([A, B], [0, 1])

    def matched(boxes, classes, scores):
        return sheets.match(truth, instances(boxes, classes, scores))

    assert matched([A, B], [0, 1], [0.9, 0.8]) == ([True, True], [False, False])
    assert matched([A, B], [1, 1], [0.9, 0.8]) == ([False, True], [True, False])  # class
    assert matched([HALF_A], [0], [0.9]) == ([True], [False, True])
    assert matched([LESS_A], [0], [0.9]) == ([False], [True, True])
    # One box is matched once: by the surest, not by the best fitting or the first.
    assert matched([A, HALF_A], [0, 0], [0.6, 0.9]) == ([False, True], [False, True])
    assert matched([], [], []) == ([], [True, True])
    nothing = instances([], [])
    assert sheets.match(nothing, instances([A], [0], [0.9])) == ([False], [])


def test_a_detection_takes_the_best_box_that_is_left(sheets):
    near = [12, 10, 32, 30]  # IoU with A: 360 / 440
    truth = instances([A, near], [0, 0])
    found = instances([A, A], [0, 0], [0.9, 0.8])
    assert sheets.match(truth, found) == ([True, True], [False, False])


def test_marks_tell_true_false_and_missed_apart(sheets):
    truth = instances([A, B], [0, 1])
    found = instances([A, [100, 50, 120, 70]], [0, 7], [0.9, 0.555])
    image = np.zeros((100, 160, 3), np.uint8)
    left, right = sheets.marks(sheets.Sample("a", image, truth, found), ["cat", "dog"])
    assert [(mark.box, mark.text, mark.style) for mark in left] == [
        (A, "cat", sheets.TRUTH),
        (B, "dog", sheets.TRUTH),
    ]
    # Lowest score first, so that the surest is drawn on top.
    assert [(mark.text, mark.style) for mark in right] == [
        ("dog", sheets.MISSED),
        ("class 7 0.56", sheets.FALSE),
        ("cat 0.90", sheets.TRUE),
    ]
    assert left[0].moved(2.0, 5, 7).box == [25, 27, 65, 67]


def pixels_of(sheet, colour):
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_sheet(sheets):
    grey = np.full((100, 160, 3), 127, np.uint8)
    truth = instances([A, B], [0, 1])
    found = instances([A, [100, 50, 120, 70]], [0, 0], [0.9, 0.6])
    samples = [sheets.Sample(f"image {i}", grey, truth, found) for i in range(3)]
    sheet = sheets.make_sheet(samples, ["cat", "dog"], "a title", tile=320)
    # Two rows of two pairs, images enlarged to 320 x 200.
    assert sheet.width == 4 * 320 + 7 * sheets.GAP
    assert sheet.height == sheets.HEADER + 2 * (sheets.TITLE + 200 + sheets.GAP)
    first = sheet.crop((sheets.GAP, sheets.HEADER + sheets.TITLE, sheets.GAP + 320, sheet.height))
    second = sheet.crop(
        (sheets.GAP + 320 + sheets.GAP, sheets.HEADER + sheets.TITLE, 660, sheet.height)
    )
    assert pixels_of(first, sheets.TRUTH.colour) and not pixels_of(second, sheets.TRUTH.colour)
    for style in (sheets.TRUE, sheets.FALSE, sheets.MISSED):
        assert pixels_of(second, style.colour) and not pixels_of(first, style.colour), style
    # A's outline, twice as large as in the image.
    left, top = sheets.GAP + 20, sheets.HEADER + sheets.TITLE + 20
    assert all(sheet.getpixel((left, y)) == sheets.TRUTH.colour for y in range(top + 1, top + 40))


def test_sheet_without_detections_or_ground_truth(sheets):
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    sample = sheets.Sample("a" * 300, image, instances([A], [0]), instances([], [], []))
    sheet = sheets.make_sheet([sample], ["cat"], "a title")
    assert pixels_of(sheet, sheets.MISSED.colour) > 1000  # in the legend and on the tile
    nothing = sheets.Sample("b", image, instances([], []), instances([], [], []))
    sheet = sheets.make_sheet([nothing], ["cat"], "a title")
    assert sheet.width >= sheets.legend_places(Counter())[1]


def test_labels_stay_inside_and_off_each_other(sheets):
    frame, size = (0, 0, 100, 100), (40, 14)
    corner = sheets.place_label(size, (90, -5, 120, 20), frame, [])
    assert corner[0] >= 0 and corner[1] >= 0 and corner[2] <= 100 and corner[3] <= 100
    first = sheets.place_label(size, (20, 40, 70, 80), frame, [])
    second = sheets.place_label(size, (20, 40, 70, 80), frame, [first])
    assert first == (20, 26, 60, 40)  # on top of the box, where it starts
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    assert across <= 0 or down <= 0


def test_images_are_evenly_spread(show):
    assert show.spread(9, 3) == [0, 4, 8]
    assert show.spread(3, 8) == [0, 1, 2]
    assert show.spread(5, 1) == [0]
    assert len(show.spread(200, 8)) == 8


def test_samples_come_from_data_set_and_predictor(show, tmp_path, monkeypatch):
    from detectron2.data import DatasetCatalog
    from detectron2.structures import BoxMode

    Image.new("RGB", (160, 100), (255, 0, 0)).save(tmp_path / "red.png")
    box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    record = {"file_name": str(tmp_path / "red.png"), "image_id": 7, "height": 100, "width": 160}
    record["annotations"] = [box, {**box, "iscrowd": 1}]

    def predict(image):
        assert image[0, 0].tolist() == [0, 0, 255]  # blue first
        return {"instances": instances([A, B], [1, 1], [0.5, 0.49])}

    monkeypatch.setattr(show, "DefaultPredictor", lambda cfg: predict)
    cfg = SimpleNamespace(MODEL=SimpleNamespace(WEIGHTS=str(tmp_path / "red.png")))
    DatasetCatalog.register("one_red_image", lambda: [record])
    try:
        (sample,) = show.load_samples(cfg, "one_red_image", 8, 0.5)
    finally:
        DatasetCatalog.remove("one_red_image")
    assert sample.name == "7" and sample.image[0, 0].tolist() == [255, 0, 0]
    assert sample.truth.gt_boxes.tensor.tolist() == [A] and sample.truth.gt_classes.tolist() == [1]
    assert sample.found.scores.tolist() == [0.5]


@pytest.mark.parametrize(
    "options, message",
    [
        (["MODEL.WEIGHTS", "nowhere.pth"], "'nowhere.pth', which is no file"),
        ([], "MODEL.WEIGHTS: expected a checkpoint, got ''"),
        (["--dataset", "unheard_of"], "data set 'unheard_of' is not registered"),
        (["NO.KEY", "1"], "Non-existent key: NO.KEY"),
        (["MODEL.WEIGHTS"], "odd length"),
    ],
)
def test_mistakes_with_detections_are_one_line_and_exit_code_2(show, options, message, capsys):
    arguments = ["--config-file", str(REPO / "configs" / "retina_alwa.yaml"), *options]
    assert show.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("show_detections: ") and message in error


def test_weights_that_are_no_checkpoint_are_refused(show, tmp_path):
    from detectron2.data import DatasetCatalog

    def no_model(cfg):
        raise RuntimeError("Invalid magic number. A paragraph follows.\nAnd another.")

    (tmp_path / "a.pth").write_text("no checkpoint")
    cfg = SimpleNamespace(MODEL=SimpleNamespace(WEIGHTS=str(tmp_path / "a.pth")))
    DatasetCatalog.register("no_images", lambda: [])
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(show, "DefaultPredictor", no_model)
            with pytest.raises(runs.ToolError, match="cannot be loaded: Invalid magic"):
                show.load_samples(cfg, "no_images", 8, 0.5)
    finally:
        DatasetCatalog.remove("no_images")


def test_number_of_images_is_checked(show, capsys):
    with pytest.raises(SystemExit) as stopped:
        show.parse(["--config-file", "a.yaml", "--num-images", "0"])
    assert stopped.value.code == 2
    assert "expected at least 1, got 0" in capsys.readouterr().err


def test_scales_of_the_first_window(tmp_path):
    run = runs.load_run(
        write_run(tmp_path / "a", records(("cls", "box_reg", "rpn_cls", "rpn_loc")))
    )
    assert run.pairs == [("cls", "box_reg"), ("rpn_cls", "rpn_loc")]
    # Lines of iterations 19 and 39 are in the window of 50: 1 and 1/2, twice that for the box.
    assert runs.first_window(run, "cls") == (50, 0.75)
    assert runs.first_window(run, "box_reg") == (50, 1.5)
    # The third and the fourth loss are 3 and 4 times the first.
    assert [loss_panels.scale_ratio(run, pair) for pair in run.pairs] == [0.5, 0.75]
    losses, scales = loss_panels.make_scales([run]).axes
    bars = {bar.get_gid(): bar for bar in scales.patches}
    ends = {
        name: bars[f"scale {name}"].get_x() + bars[f"scale {name}"].get_width()
        for name in run.losses
    }
    assert ends == pytest.approx({"cls": 0.75, "box_reg": 1.5, "rpn_cls": 2.25, "rpn_loc": 3.0})
    texts = [text.get_text() for text in scales.texts]
    assert "ROI: class / box = 0.5" in texts and "RPN: class / box = 0.75" in texts
    assert "logged of the first 50 iterations" in scales.get_xlabel()


def test_a_window_before_the_first_line_reaches_to_it(tmp_path):
    settings = config("Fixed", interval=10)
    run = runs.load_run(write_run(tmp_path / "a", settings=settings))
    assert runs.first_window(run, "cls") == (20, 1.0)


def constant(folder, cls, box, score=None, **settings):
    """A run of 200 iterations with fixed weights."""
    lines = records(statistics=False)[:-1]
    for line in lines:
        line["alwa/weight_cls"], line["alwa/weight_box_reg"] = cls, box
    return runs.load_run(
        write_run(
            folder,
            lines + [{"iteration": 200, "bbox/AP": score}] * (score is not None),
            config("Fixed") | settings,
        )
    )


def larger(run):
    """The run with losses ten times as large."""
    series = {
        key: np.array([values[0], 10 * values[1]]) if "loss_" in key else values
        for key, values in run.series.items()
    }
    return replace(run, series=series)


def test_grid_names_weights_and_gains(tmp_path):
    given = [
        constant(tmp_path / "a", 1.0, 1.0, 40.0),
        constant(tmp_path / "b", 0.25, 0.5, 41.5),
        constant(tmp_path / "c", 1.0, 1.0, 42.0),
        constant(tmp_path / "d", 0.5, 0.75),
        runs.load_run(write_run(tmp_path / "e")),
    ]
    figure = loss_panels.make_grid(given)
    assert [axes.get_title() for axes in figure.axes] == [
        "w_cls : w_box = 1 : 1\na\nAP 40.0, weights 1:1",
        "w_cls : w_box = 0.25 : 0.5\nb\nAP 41.5, +0.5 against the mean of 2 with 1:1",
        "w_cls : w_box = 1 : 1\nc\nAP 42.0, weights 1:1",
        "w_cls : w_box = 0.5 : 0.75\nd\nno AP: not evaluated",
        "ALWA_2 authors C=50\ne\nAP 40.2, -0.8 against the mean of 2 with 1:1",
    ]
    scaled = loss_panels.make_grid([*given, larger(given[0])])
    assert len({axes.get_ylim() for axes in scaled.axes}) == 1
    assert scaled.axes[0].get_ylim() != figure.axes[0].get_ylim()
    ((iterations, _),) = drawn(figure.axes[1], "trend cls")
    assert iterations == list(range(19, 200, 20))
    alone = loss_panels.make_grid(given[1:2]).axes[0].get_title()
    assert alone.endswith("AP 41.5, no such run with 1:1 given")
    longer = runs.load_run(
        write_run(tmp_path / "f", records() + [{**records()[0], "iteration": 219}])
    )
    assert runs.gain(longer, given) is None


def test_gains_are_over_the_twin_of_the_same_settings_and_seed(tmp_path):
    def make(name, weight, score, seed, kind):
        rest = {"SOLVER": {"BASE_LR": 0.1}, "KIND": kind, "OUTPUT_DIR": name, "SEED": seed}
        return constant(tmp_path / name, weight, 1.0, score, **rest)

    given = [
        make("g0", 1.0, 27.0, 0, "giou"),
        make("g1", 1.0, 29.0, 1, "giou"),
        make("l0", 1.0, 20.0, 0, "l1"),
        make("g0half", 0.5, 25.0, 0, "giou"),
        make("g2half", 0.5, 25.0, 2, "giou"),
        make("l0half", 0.5, 21.0, 0, "l1"),
        make("other", 0.5, 21.0, 0, "ciou"),
    ]
    found = [runs.gain(run, given) for run in given[3:]]
    assert found == [(-2.0, "1:1"), (-3.0, "the mean of 2 with 1:1"), (1.0, "1:1"), None]


def test_gains_are_numbers(tmp_path):
    nan = float("nan")
    given = [constant(tmp_path / n, 1.0, 1.0, s) for n, s in (("a", nan), ("b", 40.0))]
    half = constant(tmp_path / "c", 0.5, 1.0, 41.0)
    assert runs.gain(half, given) == (1.0, "1:1") and runs.gain(given[0], given) is None
    assert loss_panels.grid_title(given[0], given).endswith("no AP: nan")


def test_the_grid_compares_runs_that_weight_a_part_of_the_same_losses(tmp_path):
    every = records(("cls", "box_reg", "rpn_cls", "rpn_loc"))
    names = ("rpn_cls", "rpn_loc")
    part = [
        {k: v for k, v in line.items() if not k.endswith(names) or k[:5] == "loss_"}
        for line in every
    ]
    base = [{**line, "alwa/weight_cls": 1.0, "alwa/weight_rpn_cls": 1.0} for line in every]
    weighted = runs.load_run(write_run(tmp_path / "roi", part))
    none = runs.load_run(write_run(tmp_path / "none", base, config("Fixed")))
    assert weighted.losses == ["cls", "box_reg"] and weighted.pairs == [("cls", "box_reg")]
    assert weighted.place(("cls", "box_reg")) == "ROI"
    assert runs.gain(weighted, [weighted, none]) == (0.0, "1:1")
    panel = loss_panels.make_grid([weighted, none]).axes[0]
    # Unweighted by the weighter, and so drawn as they are.
    for factor, name in enumerate(("cls", "box_reg", "rpn_cls", "rpn_loc"), 1):
        ((_, values),) = drawn(panel, f"trend {name}")
        assert values[0] == factor


def test_names_of_any_kind_can_be_titles(tmp_path):
    """Matplotlib takes what stands between two dollar signs for a formula."""
    name = "a$_\\b$" + "x" * 70 + "-seed0-0123456789ab"
    folder = write_run(tmp_path / name, settings=config("Fixed"))
    for kind in ("--grid", "--scales"):
        assert plot_losses.main([str(folder), kind, "--title", "$_x\\$"]) == 0
    assert plot_losses.main([str(folder)]) == 0
    lines = loss_panels.grid_title(runs.load_run(folder), []).split("\n")
    assert "".join(lines[1:-1]) == name[: -len("-0123456789ab")]
    assert max(map(len, lines)) <= 52


def test_an_update_before_the_first_line_is_marked(tmp_path):
    lines = records()
    for line in lines[:5]:
        line["alwa/weight_cls"] = 0.7
    run = runs.load_run(write_run(tmp_path / "a", lines, config(interval=10)))
    # Iteration 19 is logged after the updates at 10 and 20; which of them it was is not known.
    assert curves.update_marks(run) == ([], [])
    weights = plot_losses.make_figure([run]).axes[1]
    ((iterations, values),) = drawn(weights, "alwa/weight_cls")
    assert (iterations[:2], values[:2]) == ([0, 20], [1.0, 0.7])
    assert weights.get_legend().get_title().get_text().startswith("logged every 20 iterations")
    one_each = runs.load_run(write_run(tmp_path / "c", lines, config(interval=20)))
    assert curves.update_marks(one_each)[1][0] == 20
    weights = plot_losses.make_figure([one_each]).axes[1]
    assert not weights.get_legend().get_title().get_text()
    # The rest of a run that was resumed elsewhere began with a weight that is not known.
    rest = runs.load_run(write_run(tmp_path / "b", lines[4:], config(interval=10)))
    assert rest.weights("cls")[0, 0] == 99


def test_a_frozen_run_has_no_update_after_that(tmp_path):
    settings = config(interval=20, FREEZE_AFTER=110)
    run = runs.load_run(write_run(tmp_path / "a", settings=settings))
    assert run.updates == [20, 40, 60, 80, 100]
    assert "C = 20 iterations, frozen after 110" in curves.headline(run)
    assert run.rule_name == "ALWA_2 authors C=20, frozen after 110"


def test_a_line_cut_off_before_a_resume_is_left_out_with_a_warning(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    lines = (folder / "metrics.json").read_text().splitlines()
    joined = lines[:3] + [lines[3][:40] + lines[3]] + lines[4:]
    (folder / "metrics.json").write_text("\n".join(joined) + "\n")
    run = runs.load_run(folder)
    assert "line 4: begin cut off, left out" in capsys.readouterr().err
    assert list(run.series["loss_cls"][0]) == list(range(19, 200, 20))


@pytest.mark.parametrize("kind", ["scales", "grid"])
def test_the_other_figures_have_files_of_their_own(kind, tmp_path):
    folder = write_run(tmp_path / "a")
    assert plot_losses.main([str(folder), f"--{kind}"]) == 0
    assert (folder / f"{kind}.png").exists() and not (folder / "losses.png").exists()


def test_more_than_two_pairs_have_a_column_each(tmp_path):
    stages = [f"{loss}_stage{k}" for k in range(3) for loss in ("cls", "box_reg")]
    run = runs.load_run(write_run(tmp_path / "a", records(("rpn_cls", "rpn_loc", *stages))))
    assert run.losses == [*stages, "rpn_cls", "rpn_loc"]
    figure = plot_losses.make_figure([run])
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["a: ROI, stage 0", "a: ROI, stage 1", "a: ROI, stage 2", "a: RPN"]
    assert len(figure.axes) == 12
    assert drawn(figure.axes[1], "points loss_cls_stage1")
    assert len(plot_losses.make_figure([run, run]).axes) == 24
