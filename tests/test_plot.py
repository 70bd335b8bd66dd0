"""`alwa-d2 plot`: its files, its words, its mistakes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from PIL import Image
from run_folders import config, write_run

from alwa_d2.analysis import grid_figure
from alwa_d2.analysis.runs import load_run
from alwa_d2.cli.main import main


def test_pictures_are_png_files(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    with pytest.raises(SystemExit):
        main(["plot", str(folder), "--output", str(tmp_path / "a.pdf")])
    assert "--output: expected a name that ends in .png, got " in capsys.readouterr().err
    assert not (tmp_path / "a.pdf").exists()


def test_the_script_draws_without_a_display_and_refuses_other_folders(tmp_path):
    folder = write_run(tmp_path / "a")
    script = [sys.executable, "-m", "alwa_d2", "plot"]
    done = subprocess.run([*script, folder, tmp_path], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 2
    assert done.stderr.startswith(f"alwa-d2 plot: {tmp_path}/metrics.json: no such file")
    assert done.stderr.count("\n") == 1
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    done = subprocess.run(
        [*script, folder], capture_output=True, text=True, cwd=REPO, env=environment
    )
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
    assert main(["plot", str(folder), "--output", str(output)]) == 0
    assert 10_000 < output.stat().st_size < 300_000
    assert not (folder / "losses.png").exists()


@pytest.mark.parametrize("kind", ["scales", "grid"])
def test_the_other_figures_have_files_of_their_own(kind, tmp_path):
    folder = write_run(tmp_path / "a")
    assert main(["plot", str(folder), f"--{kind}"]) == 0
    assert (folder / f"{kind}.png").exists() and not (folder / "losses.png").exists()


def test_names_of_any_kind_can_be_titles(tmp_path):
    """Matplotlib takes what stands between two dollar signs for a formula."""
    name = "a$_\\b$" + "x" * 70 + "-seed0-0123456789ab"
    folder = write_run(tmp_path / name, settings=config("Fixed"))
    for kind in ("--grid", "--scales"):
        assert main(["plot", str(folder), kind, "--title", "$_x\\$"]) == 0
    assert main(["plot", str(folder)]) == 0
    lines = grid_figure.grid_title(load_run(folder), []).split("\n")
    assert "".join(lines[1:-1]) == name[: -len("-0123456789ab")]
    assert max(map(len, lines)) <= 52
