"""The tables of docs/kernels.md on a GPU, from the figures in docs/results/h200.json."""

import json

import pytest
from conftest import REPO

FIGURES = json.loads((REPO / "docs" / "results" / "h200.json").read_text())
PAGE = (REPO / "docs" / "kernels.md").read_text()
TEXT = " ".join(PAGE.split())  # of sentences, wherever their lines end
FORMS = {"flat": "flat", "nchw": "contiguous"}
BOXES = ("l1", "ciou")
COMPILED = ("compiled, one pass", "compiled, negatives first")


def losses(which, size, form, dtypes, cases):
    return [
        row["us"]
        for row in FIGURES[which]
        if (row["size"], row["form"]) == (size, form)
        and row["dtype"] in dtypes
        and row["case"] in cases
    ]


def copy(size, form, dtype):
    keys = {"case": "focal", "size": size, "form": form, "dtype": dtype}
    return next(row["copy_us"] for row in FIGURES["losses"] if keys.items() <= row.items())


def peer(form, dtype, name, key="gpu_ms"):
    keys = {"form": form, "dtype": dtype, "peer": name}
    return next((row[key] for row in FIGURES["peers"] if keys.items() <= row.items()), None)


@pytest.mark.parametrize("size", ["small", "voc", "coco"])
@pytest.mark.parametrize("form", FORMS)
def test_losses(size, form):
    for dtype in ("float32", "bfloat16"):
        before, now = (
            losses(which, size, form, [dtype], ["focal"])[0]
            for which in ("losses_before_tuning", "losses")
        )
        of_copy = copy(size, form, dtype)
        row = f"| `{size}` | {FORMS[form]} | {dtype} | {before:.1f} | {now:.1f} | {of_copy:.1f} |"
        assert f"{row} {now / of_copy:.2f} |" in PAGE
    ranges = []
    for which in ("losses_before_tuning", "losses"):
        times = losses(which, size, form, ["float32", "bfloat16"], BOXES)
        assert len(times) == 4
        ranges.append(f"{min(times):.1f} to {max(times):.1f}")
    assert f"| `{size}` | {FORMS[form]} | {ranges[0]} | {ranges[1]} |" in PAGE


def variant(name, machine):
    """Microseconds of the focal loss, size `coco`: (loss, copy) for each layout and dtype."""
    rows = [x for x in FIGURES["variants"] if (x["variant"], x["machine"]) == (name, machine)]
    rows = [x for x in rows if x["size"] == "coco"]
    assert len(rows) == 6
    return [(sum(x["us"]) / len(x["us"]), x["copy_us"]) for x in rows]


def test_variants():
    ours, formula = variant("as they are", 1), variant("shorter formula", 2)

    def row(label, times):
        assert f"| {label} | {' | '.join(times)} |" in PAGE

    row("ours, µs", [f"{us:.1f}" for us, _ in ours])
    row("copy, µs", [f"{us:.1f}" for _, us in ours])
    for label, name, machine, of in (
        ("shorter formula (1)", "shorter formula", 1, ours),
        ("and anchors without an object apart (2)", "and chunks of background apart", 1, ours),
        ("and five channels read together, not four", "and five channels ahead", 1, ours),
        ("the next vector asked for at once (3)", "the next vector asked for at once", 2, formula),
    ):
        pairs = zip(variant(name, machine), of, strict=True)
        row(label, [f"{time[0] / other[0]:.2f}" for time, other in pairs])
    (parts,) = (
        x
        for x in FIGURES["kernels_of_shorter_formula"]
        if (x["form"], x["dtype"]) == ("flat", "bfloat16")
    )
    small = parts["total_us"] + parts["multiply_us"] + parts["ones_us"]
    assert (
        f"Of the {formula[1][0]:.1f} µs with the shorter formula (flat, bfloat16), the focal kernel "
        f"itself took {parts['focal_us']:.1f}. Three small kernels took {small:.1f}: the sum over "
        f"all blocks {parts['total_us']:.1f}, the look at the incoming gradient "
        f"{parts['multiply_us']:.1f}, and PyTorch's, which writes that gradient, "
        f"{parts['ones_us']:.1f}."
    ) in TEXT


@pytest.mark.parametrize("key, ending", [("gpu_ms", ""), ("ms", ", a call")])
@pytest.mark.parametrize(
    "label, names",
    [
        ("ours", ["alwa_d2"]),
        ("ours, loss / n", ["alwa_d2, loss / n outside"]),
        ("best compiled", COMPILED),
        ("compiled with `log`", ["compiled, log"]),
        ("apex", ["apex"]),
        ("mmcv", ["mmcv"]),
        ("torchvision", ["torchvision"]),
        ("Detectron2", ["Detectron2"]),
    ],
)
def test_peers(label, names, key, ending):
    if label == "best compiled" and key == "ms":
        names = [*COMPILED, "compiled, log"]  # which is the faster call where the CPU is slow
    cells = []
    for of in (("flat", "float32"), ("nchw", "float32"), ("flat", "bfloat16")):
        times = [peer(*of, name, key) for name in names]
        if times[0] is None:
            cells.append("")
            continue
        ratio = "" if label == "ours" else f" ({min(times) / peer(*of, 'alwa_d2', key):.1f})"
        cells.append(f"{1000 * min(times):.0f}{ratio}")
    row = f"| {label}{ending} | {' | '.join(cells)} |"
    assert (row in PAGE) == (not ending or label not in ("ours, loss / n", "compiled with `log`"))


def test_goals():
    def best(form, dtype):
        return min(peer(form, dtype, name) for name in COMPILED) / peer(form, dtype, "alwa_d2")

    def to_copy(form, dtype, of="nchw"):
        return losses("losses", "coco", form, [dtype], ["focal"])[0] / copy("coco", of, dtype)

    for dtype, goal in (("float32", 1.25), ("bfloat16", 1.5)):
        cells = [to_copy(form, dtype, "flat") for form in FORMS]
        cells = [f"**{x:.2f}**" if x > goal else f"{x:.2f}" for x in cells]
        row = f"| focal, {dtype}: time / one copy | ≤ {goal} | {cells[0]} | {cells[1]} (8) |"
        assert row in PAGE
    five = (to_copy("nchw", dtype) for dtype in ("float32", "bfloat16"))
    assert "it is {:.2f} (float32) and {:.2f} (bfloat16)".format(*five) in PAGE
    row = f"≥ 1.5 | **{best('flat', 'float32'):.2f}** | {best('nchw', 'float32'):.2f} |"
    assert f"| focal, float32: time of the best compiled / ours | {row}" in PAGE
    row = f"≥ 1.5 | {best('flat', 'bfloat16'):.2f} | not measured |"
    assert f"| focal, bfloat16: time of the best compiled / ours | {row}" in PAGE
    as_they_are = [us / copied for us, copied in variant("as they are", 1)][:2]
    now = [to_copy("flat", dtype, "flat") for dtype in ("float32", "bfloat16")]
    said = "it is {1:.2f} in place of {0:.2f} and {3:.2f} in place of {2:.2f}"
    pairs = [x for pair in zip(now, as_they_are) for x in pair]
    assert said.format(*pairs) in TEXT
    gradient = 2 * 201_600 * 80 * 4 / 2**20
    assert peer("flat", "float32", "alwa_d2", "mib") / gradient < 1.005
    assert peer("flat", "bfloat16", "alwa_d2", "mib") / gradient * 2 < 1.005


def test_predictions_stand_beside_what_was_measured():
    for size in ("voc", "coco"):
        for dtype in ("float32", "bfloat16"):
            for form, layout in (("flat", "rows"), ("nchw", "planes")):
                us = losses("losses", size, form, [dtype], ["focal"])[0]
                rows = [x for x in PAGE.splitlines() if f"| `{size}`, {dtype}, {layout} |" in x]
                assert len(rows) == 1 and rows[0].endswith(f"| {us:.1f} |")
