"""The weighters: the rules on hand-made losses, state, resuming, several processes, refusals."""

import copy
import logging
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPO
from torch.utils._python_dispatch import TorchDispatchMode

from alwa_d2.weighting import (
    ALWA,
    LOSS_WEIGHTER_REGISTRY,
    Fixed,
    LossWeighter,
    build_loss_weighter,
)

VARIANTS = ("ALWA_1", "ALWA_2")
RULES = ("authors", "balance")


def pair(cls, reg, dtype=torch.float32):
    return {
        "loss_cls": torch.tensor(cls, dtype=dtype),
        "loss_box_reg": torch.tensor(reg, dtype=dtype),
    }


def run(weighter, losses):
    """The classification weight in force in each iteration."""
    weights = []
    for cls, reg in losses:
        weights.append(float(weighter.weights["loss_cls"]))
        weighter(pair(cls, reg, torch.float64))
    return weights


def numpy_weights(losses, variant, rule, interval, min_weight=0.01):
    """The same by a few lines of numpy, from the method's text."""
    weight, weights, window = 1.0, [], []
    for cls, reg in losses:
        weights.append(weight)
        window.append([weight * cls if rule == "authors" else cls, reg])
        if len(window) == interval:
            w = np.array(window)
            with np.errstate(invalid="ignore"):
                s_cls, s_reg = w.std(0, ddof=1) + (w.mean(0) if variant == "ALWA_1" else 0)
            if np.isfinite(w).all():
                if rule == "authors" and s_cls > s_reg:
                    weight = 1 - (s_cls - s_reg) / s_cls
                if rule == "balance" and s_cls > 0:
                    weight = min(max(s_reg / s_cls, min_weight), 1)
            window = []
    return weights


def sequences():
    rng = np.random.default_rng(0)
    t = np.arange(400)
    yield "constant", np.stack([0 * t + 2.0, 0 * t + 1.0], 1)
    yield "decaying", np.stack([3 * np.exp(-t / 60), np.exp(-t / 200)], 1)
    yield (
        "noisy",
        np.abs(np.stack([1 + 0.3 * rng.normal(size=400), 0.5 + 0.15 * rng.normal(size=400)], 1)),
    )
    yield "box loss larger", np.abs(np.stack([0.2 * rng.normal(size=400), rng.normal(size=400)], 1))
    no_box_loss = np.abs(rng.normal(size=(400, 2)))
    no_box_loss[50:100, 1] = 0
    yield "a window without box loss", no_box_loss
    bad = np.abs(rng.normal(size=(400, 2)))
    bad[[30, 31, 170], [0, 1, 1]] = np.nan, np.inf, -np.inf
    yield "not finite", bad
    yield "zero", np.zeros((400, 2))


@pytest.mark.parametrize("interval", [2, 25, 50])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "losses", [s for _, s in sequences()], ids=[name for name, _ in sequences()]
)
def test_rules_equal_numpy(losses, variant, rule, interval):
    weighter = ALWA(variant=variant, rule=rule, interval=interval)
    expected = numpy_weights(losses, variant, rule, interval)
    assert run(weighter, losses) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(weighter.weights["loss_box_reg"]) == 1


def test_worked_example():
    """C = 2. Losses (4, 1), (2, 2): sample deviations sqrt 2 and sqrt(1/2), so S_reg / S_cls = 1/2."""
    weighter = ALWA(interval=2)
    losses = [(4.0, 1.0), (2.0, 2.0)]
    assert run(weighter, losses) == [1, 1]
    assert float(weighter.weights["loss_cls"]) == pytest.approx(0.5)
    statistic = weighter.statistics
    assert float(statistic["loss_cls"]) == pytest.approx(math.sqrt(2))
    assert float(statistic["loss_box_reg"]) == pytest.approx(math.sqrt(0.5))
    # Weighted with 1/2 both deviations are sqrt(1/2): not larger, so the weight stays.
    assert run(weighter, losses * 2) == pytest.approx([0.5] * 4)


def test_rules_behave_as_documented():
    """docs/method.md: "authors" steps between two weights and stays at 0, "balance" does neither."""
    rng = np.random.default_rng(1)
    noisy = np.stack([1 + 0.3 * rng.normal(size=20000), 0.5 + 0.15 * rng.normal(size=20000)], 1)
    course = {rule: np.array(run(ALWA(rule=rule), noisy))[100::100] for rule in RULES}
    assert course["balance"].mean() == pytest.approx(0.5, abs=0.02)
    assert course["balance"].std() < 0.06
    assert course["authors"].mean() > 0.6
    assert np.abs(np.diff(course["authors"])).mean() > 0.15

    no_box_loss = [(1.0 + i % 2, 0.0) for i in range(100)]
    then = [(1.0 + i % 2, 1.0 + i % 2) for i in range(300)]
    assert run(ALWA(rule="authors"), no_box_loss + then)[100:] == [0] * 300
    balanced = run(ALWA(rule="balance"), no_box_loss + then)
    assert balanced[100] == 0.01 and balanced[-1] == 1


def test_min_weight_is_a_floor_for_balance_alone():
    losses = [(100.0 * (i % 2), 0.01 * (i % 2)) for i in range(4)]
    assert run(ALWA(rule="balance", interval=2, min_weight=0.3), losses)[-1] == 0.3
    assert run(ALWA(rule="authors", interval=2, min_weight=0.3), losses)[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weighted_losses_keep_dtype_keys_and_objects(dtype):
    weighter = ALWA(interval=2)
    run(weighter, [(4.0, 1.0), (2.0, 2.0)])
    losses = pair(3.0, 5.0, dtype) | {"loss_mask": torch.tensor(7.0)}
    weighted = weighter(losses)
    assert list(weighted) == list(losses)
    assert weighted["loss_mask"] is losses["loss_mask"]
    assert weighted["loss_cls"].dtype == dtype
    assert float(weighted["loss_cls"]) == 1.5 and float(weighted["loss_box_reg"]) == 5
    assert float(losses["loss_cls"]) == 3


def test_backward_across_the_end_of_a_window():
    """The graph of an iteration holds the weight it began with, although the end changes it in place."""
    weighter = ALWA(interval=2)
    x = torch.tensor(2.0, requires_grad=True)
    weighter({"loss_cls": 2 * x, "loss_box_reg": x * 0 + 1})
    weighted = weighter({"loss_cls": x * x, "loss_box_reg": x * 0 + 2})  # the window ends here
    held = weighter.weights
    weighter(pair(5.0, 1.0)), weighter(pair(1.0, 1.1))
    sum(weighted.values()).backward()
    assert x.grad == 4
    assert float(held["loss_cls"]) != float(weighter.weights["loss_cls"])


def test_nothing_is_observed_in_eval_mode_or_without_gradients():
    weighter = ALWA(interval=2)
    weighter(pair(4.0, 1.0))
    before = copy.deepcopy(weighter.state_dict())
    with torch.no_grad():
        weighter(pair(9.0, 1.0))
    losses = pair(9.0, 1.0)
    evaluated = weighter.eval()(losses)
    assert all(evaluated[key] is losses[key] for key in losses)
    weighter.observe(losses), weighter.step()
    weighter.train()
    with torch.no_grad():
        weighter.observe(losses), weighter.step()
    for name, value in weighter.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())
    weighter.train()(pair(2.0, 2.0))
    assert float(weighter.weights["loss_cls"]) == pytest.approx(0.5)


def test_observe_and_step_are_what_a_call_does():
    """As a model does it whose kernels take the weights as a scale."""
    called, split = ALWA(interval=3), ALWA(interval=3)
    for cls, reg in [(4.0, 1.0), (2.0, 2.0), (3.0, 1.5)] * 3:
        weights = split.weights
        weighted = called(pair(cls, reg))
        assert float(weighted["loss_cls"]) == pytest.approx(cls * float(weights["loss_cls"]))
        split.observe(pair(cls, reg), stats="kept")
        split.step()
        assert split.observed[1] == "kept"
    assert split.state_dict().keys() == called.state_dict().keys()
    for name, value in split.state_dict().items():
        assert torch.equal(value, called.state_dict()[name])


def test_first_loss_that_is_not_finite_is_kept():
    weighter = ALWA(interval=4)
    run(
        weighter,
        [(1.0 + i, 1.0) for i in range(5)] + [(math.nan, 1.0), (1.0, math.inf)] + [(1.0, 1.0)] * 6,
    )
    assert int(weighter.first_nonfinite) == 5
    run(weighter, [(math.inf, 1.0)] * 8)
    assert int(weighter.first_nonfinite) == 5


def test_compiles_without_graph_breaks():
    """Losses, weights and observe in the compiled region, step outside; the slot moves on the device."""
    eager, compiled = ALWA(interval=3), ALWA(interval=3)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def total(losses):
        weights = compiled.weights
        compiled.observe(losses)
        return sum(weight * losses[key] for key, weight in weights.items())

    for cls, reg in [(4.0, 1.0), (2.0, 2.0), (3.0, 1.5), (8.0, 1.0)] * 2:
        expected = sum(eager(pair(cls, reg)).values())
        loss = total(pair(cls, reg))
        compiled.step()
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    for name, value in eager.state_dict().items():
        assert torch.equal(value, compiled.state_dict()[name])


# --- State ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 7, 10])
@pytest.mark.parametrize("rule", RULES)
def test_resumed_is_bit_identical(rule, stop, tmp_path):
    """Mid-window, at an update, one before and one after."""
    rng = np.random.default_rng(2)
    losses = np.abs(rng.normal(size=(20, 2)))
    whole, first = ALWA(interval=5, rule=rule), ALWA(interval=5, rule=rule)
    expected = run(whole, losses)
    weights = run(first, losses[:stop])
    torch.save(first.state_dict(), tmp_path / "state.pth")
    second = ALWA(interval=5, rule=rule)
    second.load_state_dict(torch.load(tmp_path / "state.pth"))
    assert weights + run(second, losses[stop:]) == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value.nan_to_num(), second.state_dict()[name].nan_to_num())


def test_state_is_tensors_of_float64_or_int64_and_no_parameters():
    weighter = ALWA()
    assert not list(weighter.parameters())
    assert {v.dtype for v in weighter.state_dict().values()} == {torch.float64, torch.int64}
    assert not Fixed().state_dict()


def test_a_window_of_another_length_begins_anew(caplog):
    old = ALWA(interval=5)
    run(old, [(4.0, 1.0), (2.0, 2.0)] * 4)  # one window and three iterations
    assert float(old.weights["loss_cls"]) != 1
    new = ALWA(interval=4)
    with caplog.at_level(logging.INFO):
        new.load_state_dict(old.state_dict())
    assert len(caplog.records) == 1 and "MODEL.ALWA.INTERVAL = 4" in caplog.text
    assert new.weights["loss_cls"] == old.weights["loss_cls"]
    assert not new.window.any() and int(new.slot) == 0 and int(new.window_start) == 8
    weight = float(new.weights["loss_cls"])
    assert run(new, [(4.0, 1.0), (2.0, 2.0)] * 2) == [weight] * 4


def test_a_state_without_a_window_begins_anew_where_that_is_tolerated(caplog):
    weighter = ALWA(interval=5)
    run(weighter, [(4.0, 1.0), (2.0, 2.0)] * 4)
    with pytest.raises(RuntimeError, match='Missing key.* "window", "slot"'):
        weighter.load_state_dict({}, strict=True)
    with caplog.at_level(logging.INFO):
        caplog.clear()
        missing, unexpected = weighter.load_state_dict({}, strict=False)
    own = [*weighter.state_dict()]
    own.remove("method_id")  # which no old checkpoint has
    assert sorted(missing) == sorted(own) and not unexpected
    assert (
        len(caplog.records) == 1
        and "has no state for loss_cls and loss_box_reg: ALWA begins anew" in caplog.text
    )
    for name, value in ALWA(interval=5).state_dict().items():
        assert torch.equal(weighter.state_dict()[name].nan_to_num(), value.nan_to_num())


def test_a_state_of_weights_without_a_window_begins_a_window(caplog):
    weighter = ALWA(interval=5)
    run(weighter, [(4.0, 1.0), (2.0, 2.0)])
    weights = torch.tensor([0.5, 1.0], dtype=torch.float64)
    with caplog.at_level(logging.INFO):
        weighter.load_state_dict({"weight_vector": weights}, strict=False)
    assert len(caplog.records) == 1 and "holds no ALWA window" in caplog.text
    assert torch.equal(weighter.weight_vector, weights)
    assert not weighter.window.any() and int(weighter.slot) == 0


def test_a_state_of_old_names_is_taken():
    weighter, other = ALWA(interval=2), ALWA(interval=2)
    run(weighter, [(4.0, 1.0), (2.0, 2.0), (3.0, 3.0)])
    state = weighter.state_dict()
    state["weight"], state["statistic"] = state.pop("weight_vector"), state.pop("statistic_vector")
    other.load_state_dict(state)
    for name, value in weighter.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_reset():
    weighter = ALWA(interval=2)
    run(weighter, [(4.0, 1.0), (2.0, 2.0), (3.0, 3.0)])
    weighter.reset()
    fresh = ALWA(interval=2)
    assert run(weighter, [(8.0, 1.0), (2.0, 2.0), (3.0, 3.0)]) == run(
        fresh, [(8.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    )


def test_training_continues_on_a_copy():
    """As an averaged model is made: the copy has a window and a count of its own."""
    weighter = ALWA(interval=2)
    run(weighter, [(4.0, 1.0)])
    other = copy.deepcopy(weighter)
    run(weighter, [(2.0, 2.0)])
    assert float(other.weights["loss_cls"]) == 1
    run(other, [(2.0, 2.0)])
    assert other.weights["loss_cls"] == weighter.weights["loss_cls"]


WORKER = """
import sys
import torch, torch.distributed as dist, torch.multiprocessing as mp
from alwa_d2.weighting import ALWA

calls = 0
all_reduce = dist.all_reduce
def counted(*args, **kwargs):
    global calls
    calls += 1
    return all_reduce(*args, **kwargs)
dist.all_reduce = counted

def losses(rank, size):
    generator = torch.Generator().manual_seed(rank)
    noise = torch.rand(40, 2, generator=generator, dtype=torch.float64) * (rank + 1)
    return noise * torch.tensor([3.0, 1.0])  # so that the classification weight has to fall

def weights_of(weighter, rows):
    result = []
    for row in rows:
        weighter(dict(zip(("loss_cls", "loss_box_reg"), row)))
        result.append(weighter.weights["loss_cls"])
    return torch.stack(result)

def main(rank, size, address):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    courses = {}
    for rule in ("authors", "balance"):
        global calls
        calls = 0
        courses[rule] = weights_of(ALWA(interval=8, rule=rule), losses(rank, size))
        assert calls == 6, calls  # five windows, and the comparison at the first step
        everyone = [torch.empty_like(courses[rule]) for _ in range(size)]
        dist.all_gather(everyone, courses[rule])
        assert all(torch.equal(courses[rule], other) for other in everyone)
    assert len(courses["balance"].unique()) > 3
    dist.destroy_process_group()
    mean = torch.stack([losses(r, size) for r in range(size)]).mean(0)
    for rule, course in courses.items():
        alone = weights_of(ALWA(interval=8, rule=rule), mean)
        torch.testing.assert_close(alone, course, rtol=1e-12, atol=0)

if __name__ == "__main__":
    size = int(sys.argv[1])
    mp.start_processes(main, (size, sys.argv[2]), nprocs=size, start_method="fork")
"""


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_have_one_weight(size, tmp_path):
    """Bit-identical on every rank, one all-reduce a window and one at the beginning, equal to one
    process with the mean loss."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, str(script), str(size), f"file://{tmp_path / 'store'}"]
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr


# --- Fixed, registry, refusals --------------------------------------------------------------------


def test_fixed_weights():
    weighter = Fixed(weights=(0.5, 2.0))
    assert run(weighter, [(float(i), 1.0) for i in range(10)]) == [0.5] * 10
    weighted = weighter(pair(3.0, 5.0))
    assert float(weighted["loss_cls"]) == 1.5 and float(weighted["loss_box_reg"]) == 10
    assert {key: float(w) for key, w in Fixed().weights.items()} == {
        "loss_cls": 1,
        "loss_box_reg": 1,
    }


def test_other_keys():
    weighter = ALWA("loss_rpn_cls", "loss_rpn_loc", interval=2)
    assert list(weighter.weights) == ["loss_rpn_cls", "loss_rpn_loc"]
    with pytest.raises(KeyError, match="expected the key 'loss_rpn_cls', got"):
        weighter(pair(1.0, 1.0))
    with pytest.raises(ValueError, match="expected two keys, got 'loss_cls' twice"):
        ALWA("loss_cls", "loss_cls")


def test_built_from_a_config():
    config = pytest.importorskip("detectron2.config", reason="needs Detectron2")
    from alwa_d2 import add_alwa_config

    cfg = config.get_cfg()
    add_alwa_config(cfg)
    weighter = build_loss_weighter(cfg, "loss_cls", "loss_box_reg")
    assert isinstance(weighter, Fixed)
    assert [float(weight) for weight in weighter.weights.values()] == [1, 1]
    cfg.MODEL.LOSS_WEIGHTER.NAME = "ALWA"
    weighter = build_loss_weighter(cfg, "loss_cls", "loss_box_reg")
    assert isinstance(weighter, ALWA)
    assert (weighter.variant, weighter.rule, weighter.interval, weighter.min_weight) == (
        "ALWA_2", "balance", 100, 0.01,
    )  # fmt: skip
    cfg.merge_from_list(
        ["MODEL.LOSS_WEIGHTER.NAME", "Fixed", "MODEL.LOSS_WEIGHTER.WEIGHTS", [0.25, 0.5]]
    )
    weights = build_loss_weighter(cfg, "a", "b").weights
    assert {key: float(w) for key, w in weights.items()} == {"a": 0.25, "b": 0.5}
    cfg.MODEL.LOSS_WEIGHTER.NAME = "alwa"
    with pytest.raises(
        ValueError,
        match="MODEL.LOSS_WEIGHTER.NAME: expected one of ALWA, CoV, DWA, .*, got 'alwa'",
    ):
        build_loss_weighter(cfg, "a", "b")


@pytest.mark.parametrize("rule", ["authors", "balance"])
def test_weights_are_frozen_after_so_many_iterations(rule):
    """Windows of 4 in 24 iterations, frozen after 11: the windows that end by then count."""
    losses = [(4.0 / (1 + i % 3) / (1 + i // 8), 1.0 + 0.1 * (i % 4)) for i in range(24)]
    free, frozen = ALWA(interval=4, rule=rule), ALWA(interval=4, rule=rule, freeze_after=11)
    weights, kept = run(free, losses), run(frozen, losses)
    assert kept[:12] == weights[:12] and set(kept[8:]) == {weights[8]}
    assert rule == "authors" or len(set(weights[8:])) > 1
    for key, value in free.statistics.items():  # they are still taken
        factor = kept[-1] / weights[-1] if key == "loss_cls" and rule == "authors" else 1
        assert float(frozen.statistics[key]) == pytest.approx(factor * float(value))


@pytest.mark.parametrize("cast", ["float", "half", "bfloat16", "double"])
def test_casting_a_model_leaves_the_state_as_it_is(cast):
    weighter = ALWA(interval=3)
    run(weighter, [(4.1, 1.0)] * 2)
    before = copy.deepcopy(weighter.state_dict())
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), weighter)
    getattr(model, cast)()
    assert model[0].weight.dtype == getattr(
        torch, {"half": "float16"}.get(cast, cast.replace("double", "float64"))
    )
    for name, value in weighter.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(
            value.nan_to_num(), before[name].nan_to_num()
        )
    run(weighter, [(2.0, 2.0)])


@pytest.mark.parametrize(
    "loss, got",
    [
        (1.0, "float"),
        (torch.ones(3), r"torch.float32 of shape \[3\]"),
        (torch.tensor(1), r"torch.int64 of shape \[\]"),
    ],
)
def test_bad_losses_are_refused_by_key(loss, got):
    for weighter in (ALWA(), Fixed()):
        with pytest.raises(
            TypeError, match=rf"losses\['loss_cls'\]: expected a .* 0-dim tensor, got {got}"
        ):
            weighter({"loss_cls": loss, "loss_box_reg": torch.tensor(1.0)})


def test_a_weighter_of_the_users_own_can_be_registered():
    @LOSS_WEIGHTER_REGISTRY.register()
    class Halved(LossWeighter):
        @property
        def weights(self):
            return {self.cls_key: torch.tensor(0.5, dtype=torch.float64)}

    assert dict(LOSS_WEIGHTER_REGISTRY)["Halved"] is Halved
    weighted = LOSS_WEIGHTER_REGISTRY.get("Halved")()(pair(3.0, 5.0))
    with pytest.raises(ValueError, match="Halved: expected a new name"):
        LOSS_WEIGHTER_REGISTRY.register(Halved)
    del LOSS_WEIGHTER_REGISTRY._obj_map["Halved"]
    assert float(weighted["loss_cls"]) == 1.5 and float(weighted["loss_box_reg"]) == 5


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(variant="ALWA_3"), r"variant \(MODEL.ALWA.VARIANT\): expected one of ALWA_1, ALWA_2, got 'ALWA_3'"),
        (dict(rule="paper"), r"rule \(MODEL.ALWA.RULE\): expected one of authors, balance, got 'paper'"),
        (dict(interval=1), r"interval \(MODEL.ALWA.INTERVAL\): expected an integer of at least 2, got 1"),
        (dict(interval=2.5), "expected an integer of at least 2, got 2.5"),
        (dict(min_weight=0), r"min_weight \(MODEL.ALWA.MIN_WEIGHT\): expected 0 < weight <= 1, got 0"),
        (dict(freeze_after=-1), r"freeze_after \(MODEL.ALWA.FREEZE_AFTER\): expected an integer of at least 0, got -1"),
        (dict(min_weight=1.5), "expected 0 < weight <= 1, got 1.5"),
    ],
)  # fmt: skip
def test_alwa_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        ALWA(**arguments)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_fixed_refusals(weights):
    with pytest.raises(ValueError, match="MODEL.LOSS_WEIGHTER.WEIGHTS.*two finite numbers"):
        Fixed(weights=weights)


class Launches(TorchDispatchMode):
    """Names the operations that a device would be sent; views and aliases cost it nothing."""

    VIEWS = ("detach", "unbind", "select", "view", "alias", "slice")

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in self.VIEWS:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, dict(variant="ALWA_1"), dict(rule="authors")], ids=str)
def test_launches(options):
    """What an iteration costs a GPU: its kernels are so small that only their number counts."""
    weighter = ALWA(interval=3, **options).train()
    losses = {key: torch.tensor(0.5, dtype=torch.float64) for key in ("loss_cls", "loss_box_reg")}
    counts = []
    for _ in range(3):
        with Launches() as launches:
            assert weighter.weights
            weighter.observe(losses)
            weighter.step()
        counts.append(len(launches.names))
    assert counts[:2] == [3, 3], launches.names
    # 15 at a window's end (17 with the mean in S), 7 of them for the first iteration with a loss that
    # was not finite, and two of the iteration's own before it.
    assert counts[2] <= 19, launches.names
