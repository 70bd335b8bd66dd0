"""What every loss weighter promises, over the whole registry: a new method is in as it is registered."""

import copy
import io
import json
import math
import os
import pickle
import subprocess
import sys
from unittest import mock

import pytest
import torch
from conftest import REPO
from device_only import NoHostReads, make_fake
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses import FakeTensorMode
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY

sys.path.append(str(REPO / "examples"))
with mock.patch.object(LOSS_WEIGHTER_REGISTRY, "_add", side_effect=lambda cls: cls):
    from own_weighter import InverseRoot  # which no other test is to find in the registry

PAIR = ("loss_cls", "loss_box_reg")
# Short windows, and weights that are not 1: twelve iterations must be enough for all that happens.
OPTIONS = {
    "ALWA": {"interval": 3},
    "DWA": {"window": 3},
    "GradNorm": {"window": 2, "parameters": "^shared$"},
    "Schedule": {"points": {"loss_cls": [(0, 1.0), (8, 0.25)]}},
    "Uncertainty": {"lr": 0.05},
}
# Other settings of the same classes, which take other paths.
VARIANTS = {
    "ALWA authors": ("ALWA", {"interval": 3, "rule": "authors", "detrend": True, "smoothing": 0.5}),
    "CoV decayed": ("CoV", {"decay": 0.9}),
    "a user's own": ("InverseRoot", {}),
    "Inverse geometric": ("Inverse", {"form": "geometric"}),
    "Inverse softmax": ("Inverse", {"form": "softmax"}),
    "SelfBalance period": ("SelfBalance", {"period": 3}),
    "Uncertainty revised": ("Uncertainty", {"lr": 0.05, "revised": True}),
}
CASES = {
    **{name: (name, OPTIONS.get(name, {})) for name, _ in LOSS_WEIGHTER_REGISTRY},
    **VARIANTS,
}
METHODS = {**dict(LOSS_WEIGHTER_REGISTRY), "InverseRoot": InverseRoot}
ITERATIONS = 12


class Detector(nn.Module):
    """Losses of one shared parameter, of which two are weighted, or as many as there are keys."""

    def __init__(self, case, keys=PAIR):
        super().__init__()
        name, options = CASES[case]
        if name == "Fixed":
            options = {"weights": [0.5, 2.0, 1.0][: len(keys)]}
        self.shared = nn.Parameter(torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64))
        self.weighter = METHODS[name](*keys, **options)
        self.weighter.attach(self)

    def losses(self, batch):
        first, second = ((self.shared * x).square().mean() for x in batch)
        return {"loss_cls": 3 * first, "loss_box_reg": second, "loss_else": first + second}

    def forward(self, batch):
        return self.weighter(self.losses(batch))


def batches(count=ITERATIONS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 + torch.rand(count, 2, 3, generator=generator, dtype=torch.float64)
    return list(x * torch.linspace(1, 0.2, count)[:, None, None])


def optimizer_of(model):
    learnt = list(model.weighter.parameters())
    own = [{"params": learnt, "lr": model.weighter.learning_rate}] if learnt else []
    return torch.optim.SGD([{"params": [model.shared]}, *own], lr=0.05, momentum=0.9)


def train(model, given, optimizer=None):
    """The weighted losses of each iteration, and the weights after it, to the bit."""
    optimizer = optimizer or optimizer_of(model)
    seen = []
    for batch in given:
        weighted = model(batch)
        optimizer.zero_grad()
        sum(weighted.values()).backward()
        optimizer.step()
        values = [*weighted.values(), *model.weighter.weights.values()]
        seen.append([x.item().hex() for x in values])
    return seen


def assert_same_state(first, second, **tolerance):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            value, second[name], **(tolerance or {"rtol": 0, "atol": 0}), equal_nan=True, msg=name
        )


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def test_the_toy_moves_every_weight_that_can_move(case):
    """Otherwise the tests below show nothing."""
    seen = train(model := Detector(case), batches())
    weights = {tuple(row[3:]) for row in seen}
    assert len(weights) > (0 if case == "Fixed" else 1), weights
    assert case == "Fixed" or model.weighter.reset() and not model.weighter.reset()


# --- Losses that are not as they should be --------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", PAIR)
def test_zero_and_nonfinite_losses_leave_no_trace(case, key, value):
    """The weighted loss shows them; the weights stay finite, and move again afterwards."""
    model = Detector(case)
    optimizer = optimizer_of(model)
    for i, batch in enumerate(batches(24)):
        losses = model.losses(batch)
        if i in (0, 4, 5):
            losses[key] = losses[key] * 0 + value
        weighted = model.weighter(losses)
        if i in (0, 4, 5) and not math.isfinite(value):
            assert not math.isfinite(weighted[key].item())
            learnt = list(model.weighter.parameters())
            if learnt:
                (gradient,) = torch.autograd.grad(sum(weighted.values()), learnt)
                assert gradient.isfinite().all()
        else:
            assert all(math.isfinite(x.item()) for x in weighted.values())
            optimizer.zero_grad()
            sum(weighted.values()).backward()
            optimizer.step()
        weights = [x.item() for x in model.weighter.weights.values()]
        assert all(math.isfinite(x) and x >= 0 for x in weights), (i, weights)
        if i == 5:
            then = weights
    assert case == "Fixed" or weights != then
    for name, parameter in model.weighter.named_parameters():
        assert parameter.isfinite().all(), name


def test_missing_losses_are_named_and_change_nothing(case):
    model = Detector(case)
    before = copy.deepcopy(model)
    losses = model.losses(batches()[0])
    del losses["loss_box_reg"]
    with pytest.raises(KeyError, match="losses: expected the key 'loss_box_reg'"):
        model.weighter(losses)
    assert_same_state(model, before)
    assert train(model, batches()) == train(before, batches())


# --- State ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [PAIR, (*PAIR, "loss_else")], ids=["two", "three"])
@pytest.mark.parametrize("stop", [1, 5, 6])
def test_resumes_to_the_bit(case, stop, keys):
    if CASES[case][0] == "ALWA" and len(keys) > 2:
        pytest.skip("ALWA takes pairs alone")
    whole, first, second = (Detector(case, keys) for _ in range(3))
    expected = train(whole, batches())
    optimizer = optimizer_of(first)
    seen = train(first, batches()[:stop], optimizer)
    file = io.BytesIO()
    torch.save([first.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    model, state = torch.load(file, weights_only=True)
    train(second, batches(4, seed=9))  # loading takes nothing over from what was there
    second.load_state_dict(model)
    optimizer = optimizer_of(second)
    optimizer.load_state_dict(state)
    assert seen + train(second, batches()[stop:], optimizer) == expected
    assert_same_state(whole, second)


@pytest.mark.parametrize("other", [name for name, _ in LOSS_WEIGHTER_REGISTRY])
def test_the_state_of_another_method_is_left_out(case, other, caplog):
    """Methods have buffers of the same names: none may go on from what is not its own."""
    if CASES[case][0] == other:
        pytest.skip("is the same method: see the tests of resuming")
    saved, model = Detector(other), Detector(case)
    train(saved, batches()[:5])
    fresh = copy.deepcopy(model.weighter)
    train(model, batches()[:4])  # which is not gone on from either
    with caplog.at_level("INFO"):
        model.load_state_dict(saved.state_dict(), strict=False)
    assert_same_state(model.weighter, fresh)
    (line,) = caplog.messages
    assert line.endswith(f"{CASES[case][0]} begins anew.")


def test_pytorchs_distributed_checkpoints_have_the_state(case):
    """They look up each name of the state in the model."""
    saved, model = Detector(case), Detector(case)
    train(saved, batches()[:5])
    set_model_state_dict(model, get_model_state_dict(saved))
    assert_same_state(model, saved)


def test_the_state_of_other_losses_is_left_out():
    cov = LOSS_WEIGHTER_REGISTRY.get("CoV")
    first, second = cov(*PAIR), cov("loss_a", "loss_b")
    first({"loss_cls": torch.tensor(2.0), "loss_box_reg": torch.tensor(1.0)})
    second.load_state_dict(first.state_dict(), strict=False)
    assert not second.seen.any() and first.seen.all()


def test_a_copy_and_a_pickle_go_on_as_the_original(case):
    model = Detector(case)
    train(model, batches()[:5])
    copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    expected = train(model, batches()[5:])
    assert train(copied, batches()[5:]) == train(pickled, batches()[5:]) == expected


def test_without_gradients_observe_is_not_called():
    """A weighter of a user's own may count in it."""

    class Counting(METHODS["Fixed"]):
        count = 0

        def observe(self, losses, stats=None):
            self.count += 1
            super().observe(losses, stats)

    weighter = Counting()
    losses = {key: torch.tensor(1.0) for key in PAIR}
    with torch.no_grad():
        weighter(losses)
    assert weighter.count == 0
    weighter(losses)
    assert weighter.count == 1


def test_eval_mode_and_passes_without_gradients_change_nothing(case):
    model = Detector(case)
    train(model, batches()[:4])
    before = copy.deepcopy(model)
    losses = model.eval().losses(batches()[7])
    weighted = model.weighter(losses)
    assert all(weighted[key] is losses[key] for key in losses)
    model.train()
    with torch.no_grad():
        weighted = model(batches()[7])
    weights = before.weighter.weights
    if not case.startswith("Uncertainty"):  # whose weighted losses have a second term
        for key in PAIR:
            assert weighted[key].item() == pytest.approx((losses[key] * weights[key]).item())
    assert weighted["loss_else"].item() == losses["loss_else"].item()
    assert_same_state(model, before)
    assert train(model, batches()[4:]) == train(before, batches()[4:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_losses_keep_their_dtype_and_weights_are_wide(case, dtype):
    """As in mixed precision, and where the whole model is cast."""
    model = Detector(case)
    optimizer = optimizer_of(model)
    for batch in batches():
        losses = {key: loss.to(dtype) for key, loss in model.losses(batch).items()}
        weighted = model.weighter(losses)
        assert {loss.dtype for loss in weighted.values()} == {dtype}
        assert all(loss.isfinite() for loss in weighted.values())
        assert {weight.dtype for weight in model.weighter.weights.values()} == {torch.float64}
        optimizer.zero_grad()
        sum(weighted.values()).backward()
        optimizer.step()
        assert model.shared.grad.isfinite().all()
    kinds = {name: x.dtype for name, x in model.weighter.state_dict().items()}
    assert set(kinds.values()) <= {torch.float64, torch.int64, torch.float32}
    model.to(dtype)
    assert {name: x.dtype for name, x in model.weighter.state_dict().items()} == kinds


def test_a_gradient_scaler_changes_nothing(case):
    """To the bit, as its scale is a power of two."""
    scaled, plain = Detector(case), Detector(case)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer, other = optimizer_of(scaled), optimizer_of(plain)
    for batch in batches():
        optimizer.zero_grad()
        scaler.scale(sum(scaled(batch).values())).backward()
        scaler.step(optimizer)
        scaler.update()
        train(plain, [batch], other)
    assert_same_state(scaled, plain)


def weighs_by_part(weighter):
    """Whether each batch has the weights of its own losses."""
    return getattr(weighter, "interval", None) == 0


def test_accumulated_batches_count_as_one_iteration(case):
    """Three parts of a batch whose gradients add up to the batch's: the mean of each loss counts."""
    parts, whole = Detector(case), Detector(case)
    parts.weighter.auto_step = False
    # Some weigh each part by its own losses, and are as with the whole batch only if all are equal.
    factors = (1, 1, 1) if weighs_by_part(parts.weighter) else (0.5, 2.0, 0.5)
    optimizer, other = optimizer_of(parts), optimizer_of(whole)
    for batch in batches():
        optimizer.zero_grad()
        for factor in factors:
            losses = {key: factor * loss for key, loss in parts.losses(batch).items()}
            (sum(parts.weighter(losses).values()) / 3).backward()
        optimizer.step()
        parts.weighter.step()
        train(whole, [batch], other)
    assert_same_state(parts, whole, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("case", [c for c in CASES if weighs_by_part(Detector(c).weighter)])
def test_accumulated_batches_have_the_weights_of_their_own_losses(case):
    model = Detector(case)
    model.weighter.auto_step = False
    optimizer = optimizer_of(model)
    for batch in batches():
        at_first = copy.deepcopy(model.weighter)
        optimizer.zero_grad()
        for factors in ((0.5, 1.0), (2.0, 0.1), (0.5, 3.0)):
            losses = model.losses(batch * torch.tensor(factors)[:, None])
            expected = copy.deepcopy(at_first)(losses)
            weighted = model.weighter(losses)
            assert all(weighted[key].item() == expected[key].item() for key in PAIR)
            sum(weighted.values()).backward()
        optimizer.step()
        model.weighter.step()


@pytest.mark.parametrize(
    "name, tensor, learnt",
    [
        ("FAMO", "_shared", ["logits", "moments", "updates", "previous"]),
        ("GradNorm", "_norms", ["weight_vector"]),
    ],
)
def test_a_replayed_iteration_is_learnt_from(name, tensor, learnt):
    """A CUDA graph writes its tensors again, and no Python runs but `step`."""
    model = Detector(name)
    for batch in batches(4):
        model(batch)
    before = copy.deepcopy(model.weighter)
    with torch.no_grad():
        getattr(model.weighter, tensor).mul_(torch.tensor([0.5, 1.0]))
    model.weighter.step()
    after = model.weighter.state_dict()
    changed = [key for key, x in before.state_dict().items() if not torch.equal(x, after[key])]
    assert changed == learnt


def test_a_checkpoint_without_a_state_is_named(case, caplog):
    model, fresh = Detector(case), Detector(case)
    train(model, batches()[:4])
    weighter, has_state = model.weighter, bool(fresh.weighter.state_dict())
    with caplog.at_level("INFO"):
        weighter.load_state_dict({}, strict=False)
    assert_same_state(weighter, fresh.weighter)
    begins = f"{type(weighter).__name__} begins anew."
    said = f"The checkpoint has no state for loss_cls and loss_box_reg: {begins}"
    assert caplog.messages == [said] * has_state


# --- Where it runs --------------------------------------------------------------------------------


def test_compiles_as_a_whole(case):
    """Weights, weighing and observing in one graph; `step` is the host's. GradNorm's partial
    backward is no part of a forward graph, and breaks it."""
    torch.compiler.reset()
    eager, compiled = Detector(case), Detector(case)

    @torch.compile(fullgraph=case != "GradNorm", backend="aot_eager")
    def total(batch):
        losses = compiled.losses(batch)
        weighter = compiled.weighter
        weights = weighter.kernel_weights()
        weighted = {key: weight * losses[key] for key, weight in weights.items()}
        weighted = weighted or weighter.weigh(losses)
        weighter.observe(losses)
        return weighted

    optimizers = [optimizer_of(eager), optimizer_of(compiled)]
    for batch in batches(8):
        expected = eager(batch)
        got = total(batch)
        for key in PAIR:
            torch.testing.assert_close(got[key], expected[key], rtol=1e-9, atol=0)
        for weighted, optimizer in zip((expected, got), optimizers):
            optimizer.zero_grad()
            sum(weighted[key] for key in PAIR).backward()
            optimizer.step()
        compiled.weighter.step()
    assert_same_state(eager.weighter, compiled.weighter, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("how", ["steps by itself", "is stepped", "is not stepped"])
def test_is_not_compiled_anew_for_each_iteration_or_batch(case, how):
    """What counts them is no number that code is compiled for, also where compiled code steps."""
    torch.compiler.reset()
    model = Detector(case)
    model.weighter.auto_step = how == "steps by itself"
    counter = CompileCounter()

    @torch.compile(backend=counter)
    def iteration(batch):
        weighted = model(batch)
        if how == "is stepped":
            model.weighter.step()
        return weighted

    counts = []
    for batch in batches(24):
        sum(iteration(batch).values()).backward()
        counts.append(counter.frame_count)
    assert counts[-1] == counts[4] > 0


@pytest.mark.parametrize("case", ["Fixed", "Uncertainty"])
def test_a_call_of_what_counts_nothing_compiles_as_a_whole(case):
    torch.compiler.reset()
    model = Detector(case)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for batch in batches(3):
        sum(compiled(batch).values()).backward()


def test_an_unfinished_iteration_is_forgotten(case):
    """By `reset`, by loading a state, and where `auto_step` is set."""
    for forget in (
        lambda weighter, state: weighter.reset(),
        lambda weighter, state: weighter.load_state_dict(state),
        lambda weighter, state: setattr(weighter, "auto_step", False),
    ):
        model = Detector(case)
        state = copy.deepcopy(model.weighter.state_dict())
        model.weighter.auto_step = False
        first, second, _ = batches(3)
        model(first * 10)
        forget(model.weighter, state)
        model(second)
        seen, _ = model.weighter.observed
        expected = model.losses(second)
        assert all(float(seen[key]) == float(expected[key]) for key in PAIR)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_reads_nothing_on_the_host(case, device):
    """Twelve iterations on fake tensors, ends of windows included; backward where it needs no GPU."""
    if case == "GradNorm" and device == "cuda":
        pytest.skip("its partial backward on CUDA needs a GPU")
    model = Detector(case)
    not_capturing = mock.patch("torch.cuda.is_current_stream_capturing", bool)
    with FakeTensorMode():
        make_fake(model, device)
        model.weighter.attach(model)
        given = [torch.zeros(2, 3, dtype=torch.float64, device=device) for _ in range(ITERATIONS)]
        with NoHostReads(), not_capturing:
            for batch in given:
                weighted = model(batch)
                assert {x.device.type for x in weighted.values()} == {device}
                if device == "cpu":
                    sum(weighted.values()).backward()


PROCESSES = """
import json, sys
import torch, torch.distributed as dist, torch.multiprocessing as mp
from test_weighter_contract import CASES, PAIR, Detector, batches, optimizer_of

def main(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    reduce, sizes = dist.all_reduce, []
    def counted(x, *args, **kwargs):
        sizes.append(x.numel())
        return reduce(x, *args, **kwargs)
    dist.all_reduce = counted
    result = {}
    for case in CASES:
        model = Detector(case)
        ddp = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        optimizer, rows = optimizer_of(model), []
        for i, batch in enumerate(batches(seed=rank)):
            sizes.clear()
            if rank and i == 7:
                batch = batch * torch.tensor([[1.0], [0.0]])  # no box loss here
            losses = model.losses(batch)
            norms = []
            if case == "GradNorm":
                norms = [model.weighter._norm(losses[key]).item() for key in PAIR]
            losses = [losses[key].item() for key in PAIR]
            weighted = ddp(batch)
            optimizer.zero_grad()
            sum(weighted.values()).backward()
            optimizer.step()
            weights = [x.item().hex() for x in model.weighter.weights.values()]
            rows.append({
                "weights": weights, "sizes": list(sizes), "loss": weighted["loss_cls"].item(),
                "losses": losses, "norms": norms,
            })
        result[case] = rows
    open(f"{store}_{rank}.json", "w").write(json.dumps(result))
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.start_processes(main, sys.argv[1:], nprocs=2, start_method="fork")
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two gloo processes saw: case -> iterations."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "program.py").write_text(PROCESSES)
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(folder / "program.py"), str(folder / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"store_{rank}.json").read_text()) for rank in (0, 1)]


WINDOW = 3
WINDOWED = {name for name, (_, options) in CASES.items() if WINDOW in options.values()}
ALONE = {"Fixed", "RLW", "Schedule", "Uncertainty", "Uncertainty revised"}
STATELESS = {"Fixed"}


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("Uncertainty")])
def test_processes_weigh_as_one_that_has_the_mean_of_their_losses(case, two_processes):
    """In GradNorm also that of their gradients' norms. Uncertainty learns from the mean of gradients,
    as all parameters do: one in which a process without the loss counts as 0."""
    weighter = Detector(case).weighter
    for one, other in zip(*(rows[case] for rows in two_processes), strict=True):
        losses, norms = (
            torch.tensor([one[name], other[name]], dtype=torch.float64).mean(0).unbind()
            for name in ("losses", "norms")
        )
        with mock.patch.object(weighter, "_norm", side_effect=norms, create=True):
            weighter(dict(zip(PAIR, losses)))
        got = [float.fromhex(x) for x in one["weights"]]
        assert got == pytest.approx([float(x) for x in weighter.weights.values()], rel=1e-9)


def test_processes_have_the_same_weights_by_few_small_collectives(case, two_processes):
    first, second = (rows[case] for rows in two_processes)
    interval = OPTIONS.get(CASES[case][0], {}).get("interval", 0)
    for i, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one["weights"] == other["weights"], i
        assert one["loss"] != other["loss"]
        # The comparison of states, in the first step; then one, of few numbers, or none.
        count = len(one["sizes"]) - (i == 0 and case not in STATELESS)
        if case in WINDOWED:
            assert count == ((i + 1) % WINDOW == 0)
        else:
            assert count == (case not in ALONE)
        assert i == 0 or sum(one["sizes"]) <= max(4, 2 * interval)
    if case != "Fixed":
        assert len({tuple(row["weights"]) for row in first}) > 1


# --- A method of a user's own ---------------------------------------------------------------------


def test_a_weighter_of_the_users_own_takes_under_thirty_lines():
    path = REPO / "examples" / "own_weighter.py"
    text = path.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) < 30
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    # Losses 4 and 1: weights 1/2 and 1 in proportion, with sum 2.
    assert done.stdout.strip() == "{'loss_cls': 0.667, 'loss_box_reg': 1.333}", done.stderr
    example = text.split("@LOSS_WEIGHTER_REGISTRY")[1].split("\n\n\nif ")[0]
    assert example in (REPO / "docs" / "method.md").read_text(), "the page shows another class"
