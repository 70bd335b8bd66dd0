"""What all weighters share: any set of losses, refusals, constants, accumulation, processes."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPO

from alwa_d2.weighting import (
    ALWA,
    LOSS_WEIGHTER_REGISTRY,
    Fixed,
    Inverse,
    Schedule,
    build_loss_weighter,
    scale_to_sum,
)

KEYS = ("loss_cls", "loss_box_reg", "loss_mask")


def losses(*values):
    return {key: torch.tensor(x, dtype=torch.float64) for key, x in zip(KEYS, values)}


def floats(tensors):
    return {key: float(x) for key, x in tensors.items()}


# --- Names of losses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: ALWA(100), r"ALWA: expected names of losses, got \(100, 'loss_box_reg'\)"),
        (lambda: ALWA(None, "x"), r"expected names of losses, got \(None, 'x'\)"),
        (lambda: Fixed(0.5, 1.0), r"Fixed: expected names of losses, got \(0.5, 1.0\).*by keyword"),
        (lambda: Fixed("a", ""), r"expected names of losses, got \('a', ''\)"),
        (lambda: Fixed("a"), r"expected two or more losses, got \('a',\)"),
        (lambda: Fixed("a", "b", "a"), "expected 3 keys, got 'a' twice"),
        (lambda: ALWA("a", "b", "c"), "expected two losses, since its rule .* got 3: a, b, c"),
    ],
)
def test_what_are_no_losses_of_a_method_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_any_number_of_losses_is_weighed():
    weighter = Fixed(*KEYS, weights=[0.5, 1, 2])
    weighted = weighter({**losses(1.0, 2.0, 3.0), "loss_else": torch.tensor(7.0)})
    assert floats(weighted) == {
        "loss_cls": 0.5, "loss_box_reg": 2, "loss_mask": 6, "loss_else": 7,
    }  # fmt: skip
    assert floats(weighter.observed[0]) == floats(losses(1.0, 2.0, 3.0))
    with pytest.raises(KeyError, match="expected the key 'loss_mask'"):
        weighter(losses(1.0, 2.0))


@pytest.mark.parametrize("name", dict(LOSS_WEIGHTER_REGISTRY))
def test_every_method_builds_from_the_defaults_and_begins_at_1(name):
    config = pytest.importorskip("detectron2.config", reason="needs Detectron2")
    from alwa_d2 import add_alwa_config

    cfg = config.get_cfg()
    add_alwa_config(cfg)
    cfg.MODEL.LOSS_WEIGHTER.NAME = name
    weighter = build_loss_weighter(cfg, *(KEYS[:2] if name == "ALWA" else KEYS))
    assert type(weighter) is LOSS_WEIGHTER_REGISTRY.get(name)
    weights = list(floats(weighter.weights).values())
    assert weights == pytest.approx([1] * len(weights)) or name == "RLW"
    # Those whose weights the kernels multiply with.
    known = name in ("ALWA", "CoV", "DWA", "Fixed", "RLW", "Schedule")
    assert weighter.known_before == known
    assert weighter.kernel_weights().keys() == (set(weighter.keys) if known else set())
    assert set(weighter.config_keys) <= {*flatten(cfg)}
    own = f"MODEL.LOSS_WEIGHTER.{name.upper()}."
    assert {key for key in flatten(cfg) if key.startswith(own)} <= set(weighter.config_keys)


def flatten(cfg, prefix=""):
    for key, value in cfg.items():
        yield from flatten(value, f"{prefix}{key}.") if hasattr(value, "items") else [prefix + key]


def test_a_config_without_our_keys_says_what_to_call():
    config = pytest.importorskip("detectron2.config", reason="needs Detectron2")
    with pytest.raises(ValueError, match=r"call alwa_d2.add_alwa_config\(cfg\) after get_cfg\(\)"):
        build_loss_weighter(config.get_cfg(), "a", "b")


# --- Fixed and Schedule ---------------------------------------------------------------------------


def test_fixed_by_name():
    weighter = Fixed(*KEYS, weights={"loss_mask": 0.25, "loss_cls": 2})
    assert floats(weighter.weights) == {"loss_cls": 2, "loss_box_reg": 1, "loss_mask": 0.25}
    assert "weights=2:1:0.25" in repr(weighter)
    with pytest.raises(ValueError, match="expected names out of loss_cls, .*, got 'loss_masks'"):
        Fixed(*KEYS, weights={"loss_masks": 0.25})
    with pytest.raises(ValueError, match="'loss_mask': expected a finite number of .* got -1"):
        Fixed(*KEYS, weights={"loss_mask": -1})
    with pytest.raises(ValueError, match=r"expected 3 finite numbers .* got \[0.5, 1\]"):
        Fixed(*KEYS, weights=[0.5, 1])


def test_schedule_is_piecewise_linear():
    """cls falls from 1 to 0.5 in 10 iterations and rises to 2 in 20; box jumps in one iteration."""
    points = {"loss_cls": [(0, 1.0), (10, 0.5), (30, 2.0)], "loss_mask": [(4, 0.0), (5, 3.0)]}
    weighter = Schedule(*KEYS, points=points)
    for iteration in range(40):
        expected = {"loss_box_reg": 1.0} | {
            key: np.interp(iteration, *zip(*course)) for key, course in points.items()
        }
        assert floats(weighter.weights) == pytest.approx(expected, rel=1e-14)
        weighted = weighter(losses(2.0, 3.0, 5.0))
        assert float(weighted["loss_cls"]) == pytest.approx(2 * expected["loss_cls"])
    assert int(weighter.iteration) == 40
    ends_at_0 = Schedule(points={"loss_cls": [(0, 0.9), (7, 0.0)]})
    for _ in range(8):
        ends_at_0(losses(1.0, 1.0))
    assert float(ends_at_0.weights["loss_cls"]) == 0
    assert "loss_cls 1 at 0, 0.5 at 10, 2 at 30" in repr(weighter)
    assert weighter.reset() and not weighter.reset() and floats(weighter.weights)["loss_cls"] == 1


def test_schedule_resumes_and_stands_still_in_evaluation():
    first, second = (Schedule(points={"loss_cls": [(0, 0.0), (8, 1.0)]}) for _ in range(2))
    for _ in range(3):
        first(losses(1.0, 1.0))
    with torch.no_grad():
        first(losses(1.0, 1.0))
    first.eval()(losses(1.0, 1.0))
    second.load_state_dict(first.state_dict())
    assert list(first.state_dict()) == ["iteration", "method_id"]
    assert floats(second.weights) == {"loss_cls": 0.375, "loss_box_reg": 1}
    with pytest.raises(RuntimeError, match='Missing key.*"iteration"'):
        second.load_state_dict({})


def test_schedule_compiles():
    eager, compiled = (Schedule(points={"loss_cls": [(0, 1.0), (4, 0.0)]}) for _ in range(2))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def total(values):
        weights = compiled.weights
        compiled.observe(values)
        return sum(weight * values[key] for key, weight in weights.items())

    for _ in range(5):
        values = losses(2.0, 1.0)
        assert float(total(values)) == float(sum(eager(values).values()))
        compiled.step()


@pytest.mark.parametrize(
    "points",
    [
        {"loss_cls": []},
        {"loss_cls": [(0, 1.0), (0, 2.0)]},
        {"loss_cls": [(5, 1.0), (2, 2.0)]},
        {"loss_cls": [(-1, 1.0)]},
        {"loss_cls": [(0.5, 1.0)]},
        {"loss_cls": [(0, -1.0)]},
        {"loss_cls": [(0, float("nan"))]},
        {"loss_cls": [(0, 1.0, 2.0)]},
        {"loss_cls": 1.0},
        [("loss_cls", [(0, 1.0)])],
    ],
    ids=str,
)
def test_schedule_refusals(points):
    with pytest.raises(ValueError, match=r"points \(MODEL.LOSS_WEIGHTER.SCHEDULE\).*expected a li"):
        Schedule(points=points)


def test_schedule_refuses_losses_that_it_does_not_weigh():
    with pytest.raises(ValueError, match="expected names out of loss_cls, loss_box_reg, got 'x'"):
        Schedule(points={"x": [(0, 1.0)]})


# --- What cannot be changed later -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("interval", 3), ("rule", "Authors"), ("variant", "ALWA_1"), ("min_weight", 0.5),
        ("freeze_after", 1), ("keys", ("a", "b")), ("weights", {}),
    ],
)  # fmt: skip
def test_options_are_read_only(name, value):
    weighter = ALWA(interval=100)
    before = weighter.weights if name == "weights" else getattr(weighter, name)
    with pytest.raises(AttributeError):
        setattr(weighter, name, value)
    assert name == "weights" or getattr(copy.deepcopy(weighter), name) == before
    if name == "interval":
        with pytest.raises(AttributeError, match="ALWA.interval cannot be changed.*a new ALWA"):
            weighter.interval = 3


# --- Several batches for a step of the optimizer --------------------------------------------------


def test_accumulated_batches_count_as_one_iteration():
    """The mean of each loss, once; three batches of losses whose mean is exact."""
    micro, whole = ALWA(interval=2), ALWA(interval=2)
    micro.auto_step = False
    for cls, reg in [(4.0, 1.0), (2.0, 2.0), (8.0, 1.0)]:
        weights = micro.weights
        for shift in (-0.5, 1.0, -0.5):
            weighted = micro(losses(cls + shift, reg + 2 * shift))
            assert weighted["loss_cls"] == weights["loss_cls"] * (cls + shift)
        micro.step()
        whole(losses(cls, reg))
        assert floats(micro.observed[0]) == {"loss_cls": cls, "loss_box_reg": reg}
    assert floats(micro.weights)["loss_cls"] != 1
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(micro.state_dict()[name], value, rtol=1e-14, atol=0)


def test_the_mean_over_many_batches_is_wide():
    weighter = Fixed(*KEYS[:2])
    weighter.auto_step = False
    for value in [1.0] + 127 * [1.2]:
        weighter({key: torch.tensor(value, dtype=torch.bfloat16) for key in KEYS[:2]})
    rounded = float(torch.tensor(1.2, dtype=torch.bfloat16))
    mean = floats(weighter.observed[0])["loss_cls"]
    assert mean == pytest.approx((1 + 127 * rounded) / 128, rel=1e-12)


def test_losses_computed_twice_for_a_checkpointed_forward_count_once():
    """With torch.utils.checkpoint around the whole model; `step` is left to the loop."""
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    twice, once = ALWA(interval=2), ALWA(interval=2)
    twice.auto_step = False
    for factor in (4.0, 2.0, 8.0, 3.0, 5.0):

        def total(x, factor=factor, weighter=twice):
            return sum(weighter({"loss_cls": factor * x, "loss_box_reg": x + 1}).values())

        (grad,) = torch.autograd.grad(
            torch.utils.checkpoint.checkpoint(total, x, use_reentrant=False), x
        )
        twice.step()
        (expected,) = torch.autograd.grad(total(x, factor, once), x)
        assert grad == expected
    for name, value in once.state_dict().items():
        assert torch.equal(twice.state_dict()[name], value)


# --- Weights that follow from the losses ----------------------------------------------------------


def test_weights_that_follow_from_the_losses_of_the_same_iteration():
    """Weights 1 / loss that sum to their number: of losses 1, 2, 4 they are 12/7, 6/7, 3/7."""
    weighter = Inverse(*KEYS)
    assert weighter.kernel_weights() == {}
    weighted = weighter(losses(1.0, 2.0, 4.0))
    assert floats(weighted) == pytest.approx(dict.fromkeys(KEYS, 12 / 7))
    assert floats(weighter.weights) == pytest.approx(dict(zip(KEYS, (12 / 7, 6 / 7, 3 / 7))))
    assert float(sum(Inverse(*KEYS, sum_to=1)(losses(1.0, 1.0, 1.0)).values())) == 1


def test_scale_to_sum():
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert scale_to_sum(weights).tolist() == [0.5, 1.5]
    assert scale_to_sum(weights, 8.0).tolist() == [2.0, 6.0]


# --- Without other packages, and several processes ------------------------------------------------


def run_python(code, *args):
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)


HIDE = """
import importlib.util, sys
HIDDEN = sys.argv[1].split(",")
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}")
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in HIDDEN else find_spec(name, *a)
sys.meta_path.insert(0, Hidden())
import alwa_d2
"""


def test_a_weighter_needs_neither_fvcore_nor_detectron2():
    code = (
        HIDE
        + """
import torch
weighting = alwa_d2.weighting  # imported when it is asked for
print(*sorted(name for name, _ in weighting.LOSS_WEIGHTER_REGISTRY))
print(weighting.ALWA()({'loss_cls': torch.tensor(1.), 'loss_box_reg': torch.tensor(1.)})['loss_cls'].item())
assert alwa_d2.layers.box_loss and "engine" in dir(alwa_d2)
try:
    alwa_d2.engine
except ModuleNotFoundError as error:
    print(str(error).split()[-1])
assert not any(name.startswith(("fvcore", "detectron2", "yacs")) for name in sys.modules)
"""
    )
    done = run_python(code, "fvcore,detectron2,yacs,iopath")
    assert done.returncode == 0, done.stderr
    *names, weight, missing = done.stdout.split()
    assert names == sorted(name for name, _ in LOSS_WEIGHTER_REGISTRY)
    assert (weight, missing) == ("1.0", "'detectron2'")


def test_parts_are_imported_when_they_are_asked_for():
    pytest.importorskip("detectron2", reason="needs Detectron2")
    code = """
import alwa_d2
assert alwa_d2.layers.box_loss and alwa_d2.engine.Trainer and alwa_d2.model_zoo.list_configs()
assert not hasattr(alwa_d2, "engines")
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


DISAGREE = """
import sys
import torch, torch.distributed as dist, torch.multiprocessing as mp
from alwa_d2.weighting import ALWA

LOSSES = [{"loss_cls": torch.tensor(float(i)), "loss_box_reg": torch.tensor(1.0)} for i in range(9)]

class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.weighter = ALWA(interval=4)
    def forward(self, losses):
        x = self.layer(torch.ones(1)).sum()
        return sum(self.weighter({key: x * loss for key, loss in losses.items()}).values())

def tell(rank, text):
    sys.stdout.write(f"{rank} {text}\\n")  # in one piece: three processes share the pipe
    sys.stdout.flush()

def main(rank, way, store):
    saved = Detector()
    for losses in LOSSES[:6]:
        saved(losses)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=3)
    model = Detector()
    if way == "groups":  # each process a group of its own, but for the last two
        groups = [dist.new_group([0]), dist.new_group([1, 2])]
        weighter = ALWA(interval=4, process_group=groups[min(rank, 1)])
        for i, losses in enumerate(LOSSES):
            weighter({"loss_cls": losses["loss_cls"] ** rank, "loss_box_reg": losses["loss_cls"]})
        tell(rank, float(weighter.weights["loss_cls"]))
        return
    if way == "before" and rank == 0 or way == "everyone":
        model.load_state_dict(saved.state_dict())
    ddp = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    if way == "after" and rank == 0:
        ddp.module.load_state_dict(saved.state_dict())
    try:
        for losses in LOSSES:
            ddp(losses).backward()
        tell(rank, "agreed")
    except RuntimeError as error:
        tell(rank, error)
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.start_processes(main, sys.argv[1:], nprocs=3, start_method="fork")
"""


@pytest.mark.parametrize("way", ["before", "after", "everyone"])
def test_a_checkpoint_that_one_process_alone_loads_is_found_at_the_first_step(way, tmp_path):
    """Before the model is wrapped, which copies the buffers but not what is counted, and after it."""
    done = run_program(tmp_path, DISAGREE, way, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    said = sorted(done.stdout.splitlines())
    assert [line.split()[0] for line in said] == ["0", "1", "2"]
    if way == "everyone":
        assert all(line.endswith("agreed") for line in said), said
    else:
        words = "ALWA of loss_cls and loss_box_reg: expected the same state on all processes"
        assert all(words in line and "count from 0 to 2" in line for line in said), said


def test_processes_of_a_group_share_their_weights(tmp_path):
    done = run_program(tmp_path, DISAGREE, "groups", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    weights = dict(line.split() for line in done.stdout.splitlines())
    assert weights["1"] == weights["2"] != weights["0"]


def run_program(folder, code, *args):
    script = folder / "program.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
