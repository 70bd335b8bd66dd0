"""Each method against a few lines of NumPy, a closed form, or PyTorch's own autograd and Adam."""

import math
import random

import numpy as np
import pytest
import torch

from alwa_d2.weighting import (
    ALWA,
    DWA,
    FAMO,
    RLW,
    CoV,
    GradNorm,
    Inverse,
    SelfBalance,
    Uncertainty,
    scale_to_sum,
)

KEYS = ("loss_cls", "loss_box_reg", "loss_mask")
NAN, INF = math.nan, math.inf


def losses(row):
    return {key: torch.tensor(float(x), dtype=torch.float64) for key, x in zip(KEYS, row)}


def weights_of(weighter):
    return [float(weight) for weight in weighter.weights.values()]


def run(weighter, rows):
    """The weights that each iteration was weighed with, (iterations, losses)."""
    weights = []
    for row in rows:
        weighted = weighter(losses(row))
        used = [float(weighted[key]) / x for key, x in zip(KEYS, row)]
        weights.append(used)
    return np.array(weights)


def falling(iterations=40, count=3, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(iterations)[:, None]
    scale = np.array([3.0, 1.0, 0.5])[:count]
    return scale * np.exp(-t / [15, 40, 90][:count]) * rng.uniform(0.8, 1.2, (iterations, count))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


# --- The sum of weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights, present, sum_to, expected",
    [
        ([1, 3, 4], [1, 1, 1], 0, [3 / 8, 9 / 8, 12 / 8]),
        ([1, 3, 4], [1, 1, 0], 0, [0.5, 1.5, 1]),
        ([1, 3, 4], [1, 1, 0], 6, [1, 3, 2]),
        ([1, 3, 4], [0, 0, 0], 0, [1, 1, 1]),
        ([0, 0, 4], [1, 1, 0], 0, [1, 1, 1]),
    ],
)
def test_the_sum_is_kept_whichever_losses_are_present(weights, present, sum_to, expected):
    weights = torch.tensor(weights, dtype=torch.float64)
    got = scale_to_sum(weights, sum_to, torch.tensor(present, dtype=torch.bool))
    assert got.tolist() == pytest.approx(expected)
    assert float(got.sum()) == pytest.approx(sum_to or 3)


@pytest.mark.parametrize(
    "method, options",
    [
        (DWA, {"window": 3}),
        (CoV, {}),
        (RLW, {}),
        (FAMO, {}),
        (Inverse, {}),
        (Inverse, {"form": "softmax"}),
    ],
)
def test_the_sum_is_what_was_asked_for_in_every_iteration(method, options):
    weighter = method(*KEYS, sum_to=5, **options)
    assert run(weighter, falling(12)).sum(1) == pytest.approx(np.full(12, 5.0))
    if weighter.reset():
        assert sum(weights_of(weighter)) == pytest.approx(5)


def test_the_geometric_mean_is_scaled_as_a_whole():
    rows = falling(3)
    used = run(Inverse(*KEYS, form="geometric", sum_to=5), rows)
    assert used == pytest.approx(run(Inverse(*KEYS, form="geometric"), rows) * 5 / 3)


@pytest.mark.parametrize("method", [SelfBalance, FAMO, Inverse])
def test_losses_below_1e_4_count_as_that(method):
    tiny, small = method(*KEYS), method(*KEYS)
    for row in ([1e-30, 1.0, 1e-6], [0.5, 1e-12, 2.0], [1.0, 1.0, 1.0]):
        tiny(losses(row))
        small(losses(np.maximum(row, 1e-4)))
        assert weights_of(tiny) == weights_of(small)


# --- ALWA's options -------------------------------------------------------------------------------

# Weights at the ends of five windows, as they were before there were options.
BEFORE = {
    ("ALWA_1", "authors"): "158b7f8c3aedcd 1ce6df18a00299 1d69a4c5456f97 15e62e383698d7 15e62e383698d7",
    ("ALWA_1", "balance"): "158b7f8c3aedcd 1375807428abc2 1a90a48bbd31a2 1420e5ed475efc 1c9c0d7f0b173e",
    ("ALWA_2", "authors"): "168e0372ccc0d9 168e0372ccc0d9 168e0372ccc0d9 1980b0723d4f3a 1980b0723d4f3a",
    ("ALWA_2", "balance"): "168e0372ccc0d9 1ff3827c10c933 1f68804bd1e9e0 11f9a71d1343ea 1f41a182b88faa",
}  # fmt: skip


def alwa_rows():
    rng = np.random.default_rng(5)
    return np.abs(rng.normal(size=(40, 2))) + np.exp(-np.arange(40) / 9)[:, None] * (3, 1)


@pytest.mark.parametrize("variant, rule", BEFORE)
def test_alwa_without_options_is_what_it_was(variant, rule):
    weighter = ALWA(variant=variant, rule=rule, interval=8)
    got = []
    for i, row in enumerate(alwa_rows().tolist()):
        weighter(losses(row))
        if i % 8 == 7:
            got.append(float(weighter.weights["loss_cls"]))
    # The sum over a window is PyTorch's, whose order of additions goes with the machine.
    expected = [float.fromhex(f"0x{x[0]}.{x[1:]}p-1") for x in BEFORE[variant, rule].split()]
    assert got == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("variant", ["ALWA_1", "ALWA_2"])
@pytest.mark.parametrize("rule", ["authors", "balance"])
def test_detrend_and_smoothing_equal_numpy(variant, rule):
    rows, interval, keep = alwa_rows(), 8, 0.7
    got = run(
        ALWA(variant=variant, rule=rule, interval=interval, detrend=True, smoothing=keep), rows
    )
    weight, expected = 1.0, []
    for i in range(0, len(rows), interval):
        window, t = (
            rows[i : i + interval] * (weight if rule == "authors" else 1, 1),
            range(interval),
        )
        expected += [weight] * interval
        rest = np.array([y - np.polyval(np.polyfit(t, y, 1), t) for y in window.T])
        s_cls, s_reg = rest.std(1, ddof=1) + (window.mean(0) if variant == "ALWA_1" else 0)
        new = s_reg / s_cls
        if rule == "balance" or s_cls > s_reg:
            new = min(max(new, 0.01), 1) if rule == "balance" else new
            weight = keep * weight + (1 - keep) * new
    assert got[:, 0] == pytest.approx(np.array(expected), rel=1e-9)
    assert got[:, 1] == pytest.approx(1)


def test_a_loss_that_falls_evenly_has_no_spread_when_detrended():
    """cls falls by 1 an iteration, with +-0.1 on it; box stays, with +-0.1 on it: as spread as it."""
    noise = [0.1, -0.1, -0.1, 0.1]  # no slope of its own
    rows = [(9 - t + noise[t], 1 + noise[t]) for t in range(4)]
    plain, detrended = ALWA(interval=4), ALWA(interval=4, detrend=True)
    run(plain, rows), run(detrended, rows)
    assert weights_of(plain)[0] < 0.1
    assert weights_of(detrended)[0] == pytest.approx(1)


def test_options_of_alwa_are_refused_where_they_mean_nothing():
    with pytest.raises(ValueError, match="INTERVAL.*at least 3 iterations with DETREND, got 2"):
        ALWA(interval=2, detrend=True)
    with pytest.raises(ValueError, match=r"smoothing \(MODEL.ALWA.SMOOTHING\): .* got 1"):
        ALWA(smoothing=1)
    with pytest.raises(ValueError, match=r"detrend \(MODEL.ALWA.DETREND\): .* got 1"):
        ALWA(detrend=1)


# --- Uncertainty ----------------------------------------------------------------------------------


@pytest.mark.parametrize("revised", [False, True])
def test_uncertainty_equals_its_formula(revised):
    """Value, gradient of the losses and of the parameter; (s, L) and (c, L) of three losses."""
    weighter = Uncertainty(*KEYS, revised=revised)
    scale, values = np.array([-0.5, 0.4, 1.5]), np.array([2.0, 0.5, 0.1])
    with torch.no_grad():
        weighter.loss_scale.copy_(torch.tensor(scale))
    given = {
        k: torch.tensor(x, dtype=torch.float64, requires_grad=True) for k, x in zip(KEYS, values)
    }
    weighted = weighter(given)
    sum(weighted.values()).backward()
    if revised:
        weight, term = 1 / (2 * scale**2), np.log(1 + scale**2)
        slope = -values / scale**3 + 2 * scale / (1 + scale**2)
    else:
        weight, term = np.exp(-scale) / 2, scale / 2
        slope = -np.exp(-scale) / 2 * values + 1 / 2
    assert [float(x.detach()) for x in weighted.values()] == pytest.approx(
        weight * values + term, rel=1e-6
    )
    assert [float(x.grad) for x in given.values()] == pytest.approx(weight, rel=1e-6)
    assert weighter.loss_scale.grad.tolist() == pytest.approx(slope, rel=1e-6)


def test_uncertainty_learns_one_over_twice_the_loss():
    weighter = Uncertainty(*KEYS, start=2.0)
    assert weights_of(weighter) == pytest.approx([2, 2, 2])
    optimizer = torch.optim.SGD(weighter.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        sum(weighter(losses([4.0, 1.0, 0.25])).values()).backward()
        optimizer.step()
    assert weights_of(weighter) == pytest.approx([1 / 8, 1 / 2, 2], rel=1e-3)
    assert weighter.reset() and not weighter.reset()
    assert weights_of(weighter) == pytest.approx([2, 2, 2])


@pytest.mark.parametrize("value", [0.0, NAN, INF])
def test_a_loss_that_is_not_there_leaves_its_parameter_alone(value):
    weighter = Uncertainty(*KEYS)
    weighted = weighter(losses([1.0, value, 2.0]))
    sum(weighted.values()).backward()
    assert weighter.loss_scale.grad[1] == 0 and weighter.loss_scale.grad.isfinite().all()
    assert math.isfinite(weighted["loss_box_reg"].item()) == math.isfinite(value)


# --- Inverse --------------------------------------------------------------------------------------


def test_reciprocal_gives_each_loss_its_share():
    rows = falling()
    used = run(Inverse(*KEYS), rows)
    assert used == pytest.approx(3 / rows / (1 / rows).sum(1, keepdims=True))
    target = {"loss_cls": 0.5, "loss_mask": 2}
    weighted = run(Inverse(*KEYS, target=target, sum_to=5), rows) * rows
    assert weighted / weighted.sum(1, keepdims=True) == pytest.approx(
        np.broadcast_to(np.array([0.5, 1, 2]) / 3.5, rows.shape)
    )
    assert (weighted / rows).sum(1) == pytest.approx(5)


def test_geometric_has_the_gradient_of_the_geometric_mean():
    values = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (4.0, 1.0, 0.25)]
    mean = (values[0] ** 0.5 * values[1] ** 0.25 * values[2] ** 0.25) * 3
    expected = [float(x) for x in torch.autograd.grad(mean, values)]
    weighter = Inverse(*KEYS, form="geometric", target={"loss_cls": 2})
    assert run(weighter, [[4.0, 1.0, 0.25]])[0] == pytest.approx(expected)
    assert run(Inverse(*KEYS, form="geometric"), [[2.0, 2.0, 2.0]])[0] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("form", ["reciprocal", "geometric"])
def test_shares_are_relative(form):
    """However small the numbers are."""
    row = [[2.0, 3.0, 0.5]]
    small = Inverse(*KEYS, form=form, target=dict.fromkeys(KEYS, 1e-6))
    assert run(small, row)[0] == pytest.approx(run(Inverse(*KEYS, form=form), row)[0])


def test_softmax_of_reciprocals():
    rows = falling()
    expected = [3 * softmax(1 / (2.5 * row)) for row in rows]
    assert run(Inverse(*KEYS, form="softmax", temperature=2.5), rows) == pytest.approx(
        np.array(expected)
    )


@pytest.mark.parametrize("form", ["reciprocal", "geometric", "softmax"])
def test_inverse_without_some_losses(form):
    """What is absent has weight 1, and the others are weighed as if they were alone."""
    pair = Inverse(*KEYS[:2], form=form)
    expected = run(pair, [[2.0, 0.5]])[0]
    for absent in (0.0, NAN, INF, -1.0):
        weighter = Inverse(*KEYS, form=form)
        weighter(losses([2.0, 0.5, absent]))
        assert weights_of(weighter) == pytest.approx([*expected, 1])
    weighter(losses([0.0, 0.0, 0.0]))
    assert weights_of(weighter) == [1, 1, 1]
    weighter(losses([1e-30, 1.0, 1.0]))
    assert all(math.isfinite(x) and x < 65504 for x in weights_of(weighter))


def test_a_weight_that_float16_cannot_hold():
    """Its product with the loss can be held."""
    half = {key: torch.tensor(x).half() for key, x in zip(KEYS, (8.0, 1e-4, 1.0))}
    weighted = SelfBalance(*KEYS)(half)
    assert [round(float(weighted[key]), 1) for key in KEYS] == [8.0, 8.0, 8.0]
    half = {"x": torch.tensor(2e-6).half(), "y": torch.tensor(1.0).half()}
    expected = 1e5 * float(half["x"]) + math.log(2e5) / -2
    assert float(Uncertainty("x", "y", start=1e5)(half)["x"]) == pytest.approx(expected, rel=1e-3)


# --- SelfBalance ----------------------------------------------------------------------------------


def test_self_balance_of_every_iteration():
    rows = falling()
    used = run(SelfBalance(*KEYS, ratio=2.0), rows)
    assert used == pytest.approx(
        np.stack([1 + 0 * rows[:, 0], *(2 * rows[:, :1] / rows[:, 1:]).T], 1)
    )


def test_self_balance_of_means_over_a_period():
    rows, period = falling(), 8
    used = run(SelfBalance(*KEYS, period=period), rows)
    assert (used[:period] == 1).all()
    for end in range(period, len(rows), period):
        cls, *others = rows[end - period : end].mean(0)
        for row in used[end : end + period]:
            assert row == pytest.approx([1, *(cls / other for other in others)])


def test_self_balance_keeps_a_weight_where_a_loss_is_not_there():
    weighter = SelfBalance(*KEYS)
    weighter(losses([3.0, 2.0, 1.0]))
    for row in ([3.0, 0.0, 1.0], [NAN, 7.0, 7.0], [0.0, 5.0, 5.0], [3.0, INF, 1.0]):
        weighter(losses(row))
        assert weights_of(weighter) == [1, 1.5, 3]


# --- DWA, CoV, RLW --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 8])
def test_dwa(window):
    rows = falling()
    used = run(DWA(*KEYS, window=window, temperature=0.5, sum_to=2), rows)
    means = rows.reshape(-1, window, 3).mean(1)
    for number, block in enumerate(used.reshape(-1, window, 3)):
        expected = np.ones(3) / 3
        if number >= 2:
            expected = softmax(means[number - 1] / means[number - 2] / 0.5)
        assert block == pytest.approx(np.broadcast_to(2 * expected, block.shape))


def test_dwa_counts_an_absent_loss_as_unmoved():
    weighter = DWA(*KEYS, window=1, temperature=1.0)
    run(weighter, [[1, 1, 1], [2.0, NAN, 1.0]])
    assert weights_of(weighter) == pytest.approx(3 * softmax([2, 1, 1]))
    run(weighter, [[2, 0.5, 1.0]])
    assert weights_of(weighter) == pytest.approx(3 * softmax([1, 0.5, 1]))


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_cov(decay):
    rows = falling()
    used = run(CoV(*KEYS, decay=decay), rows)
    for t in range(len(rows)):
        expected = np.ones(3)
        if t >= 2:
            counts = [importance(n, decay) for n in range(t + 1)]
            means = np.array([np.average(rows[:n], 0, counts[n]) for n in range(1, t)])
            ratios = np.concatenate([np.ones((1, 3)), rows[1:t] / means])
            mean = np.average(ratios, 0, counts[t])
            deviation = np.sqrt(np.average((ratios - mean) ** 2, 0, counts[t]))
            expected = 3 * deviation / mean / (deviation / mean).sum()
        assert used[t] == pytest.approx(expected), t


def importance(n, decay):
    """Of n iterations, the last one last."""
    if not decay:
        return np.ones(n)
    first = [decay ** (n - 1)] if n else []
    return np.array(first + [(1 - decay) * decay ** (n - 1 - i) for i in range(1, n)])


def test_cov_leaves_out_iterations_without_the_loss():
    whole = falling(12)
    some = np.insert(whole, [3, 7, 9], [[0], [NAN], [INF]], axis=0)
    first, second = CoV(*KEYS), CoV(*KEYS)
    run(first, whole), run(second, some)
    assert weights_of(first) == weights_of(second)


def test_rlw_is_a_softmax_of_normal_numbers_by_seed_and_iteration():
    used = run(RLW(*KEYS, seed=3), np.ones((2000, 3)))
    for iteration in (0, 1, 1999):
        draw = random.Random(f"3 {iteration} loss_cls loss_box_reg loss_mask")
        expected = 3 * softmax([draw.gauss(0, 1) for _ in KEYS])
        assert used[iteration] == pytest.approx(expected)
    assert used.sum(1) == pytest.approx(3)
    assert used.mean(0) == pytest.approx([1, 1, 1], abs=0.05)
    # Differences of the logarithms are differences of two normal numbers: variance 2.
    differences = np.diff(np.log(used), axis=1)
    assert differences.var(0) == pytest.approx([2, 2], abs=0.2)
    assert not np.allclose(run(RLW(*KEYS, seed=4), np.ones((1, 3))), used[0])


# --- FAMO, GradNorm -------------------------------------------------------------------------------


def test_famo_equals_autograd_and_pytorchs_adam():
    rows = falling()
    used = run(FAMO(*KEYS), rows)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=1e-3)
    for t, row in enumerate(rows):
        z = logits.softmax(0)
        assert used[t] == pytest.approx(
            3 * z.detach().numpy() / row / (z.detach().numpy() / row).sum()
        )
        if t:
            fall = torch.tensor(np.log(rows[t - 1]) - np.log(row))
            (logits.grad,) = torch.autograd.grad(z, logits, fall)
            adam.step()
    assert not np.allclose(logits.detach(), 0)


def test_famo_learns_from_the_mean_of_an_iterations_batches():
    batches, whole = FAMO(*KEYS), FAMO(*KEYS)
    batches.auto_step = False
    for row in falling(6):
        for factor in (0.5, 2.0, 0.5):
            batches(losses(row * factor))
        batches.step()
        whole(losses(row))
    assert batches.logits.tolist() == pytest.approx(whole.logits.tolist(), rel=1e-12)
    assert batches.logits.any()


def test_famo_takes_an_absent_loss_as_unmoved():
    weighter = FAMO(*KEYS)
    run(weighter, [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    still = weighter.logits.clone()
    weighter(losses([1.0, NAN, 3.0]))
    assert torch.equal(weighter.logits, still)
    assert weights_of(weighter)[1] == 1 and sum(weights_of(weighter)) == pytest.approx(3)
    assert weighter.previous.tolist() == [1, 2, 3]


def test_gradnorm_equals_numpy():
    """Losses c |v|^2 / 2 of a shared v have gradients c v, whose norm is c |v|."""
    v = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    factors = falling(30)
    weighter = GradNorm(*KEYS, alpha=1.5, lr=0.025, window=5, shared=[v])
    weights, first = np.ones(3), []
    for t, row in enumerate(factors):
        assert weights_of(weighter) == pytest.approx(weights)
        weighted = weighter({key: c * (v * v).sum() / 2 for key, c in zip(KEYS, row)})
        assert [float(x.detach()) for x in weighted.values()] == pytest.approx(weights * row * 12.5)
        (gradient,) = torch.autograd.grad(sum(weighted.values()), v)  # the graph is still there
        assert gradient.tolist() == pytest.approx((weights * row).sum() * v.detach().numpy())
        if t < 5:
            first.append(12.5 * row)
        else:
            norms, ratio = 5 * row, 12.5 * row / np.mean(first, 0)
            target = (weights * norms).mean() * (ratio / ratio.mean()) ** 1.5
            weights = np.maximum(weights - 0.025 * np.sign(weights * norms - target) * norms, 0.01)
            weights = weights * 3 / weights.sum()
    assert weights_of(weighter) == pytest.approx(weights) and not np.allclose(weights, 1)


def test_gradnorm_takes_all_shared_parameters_as_one_vector():
    """Norms 3 and 4 are 5 together; the loss that one of them has no part in counts as well."""
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.0, 2.0))
    weighter = GradNorm("x", "y", shared=[a, b])
    weighter({"x": 3 * a + 4 * b, "y": 7 * b})
    assert weighter._norms.tolist() == [5, 7]


def test_gradnorm_learns_from_the_mean_of_an_iterations_batches():
    v = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    weighter = GradNorm("x", "y", shared=[v])
    weighter.auto_step = False
    for factor in (1.0, 2.0, 6.0):
        weighter({"x": factor * v, "y": 2 * v})
    weighter.step()
    assert weighter._norms.tolist() == [3, 2]
    assert weighter.first_losses.tolist() == [3, 2]


def test_gradnorm_without_a_loss():
    """It does not enter the first losses' means, and later no weight changes."""
    v = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    weighter = GradNorm("x", "y", window=2, shared=[v])
    for factors in ((2.0, 1.0), (0.0, 3.0), (4.0, 5.0)):
        weighter({key: factor * v for key, factor in zip("xy", factors)})
    assert weighter.first_losses.tolist() == [3, 2] and weights_of(weighter) == [1, 1]
    weighter({"x": 0 * v, "y": 9 * v})
    assert weights_of(weighter) == [1, 1]
    weighter({"x": 3 * v, "y": 9 * v})
    assert weights_of(weighter) != [1, 1]
    assert "with a partial backward for each loss" in weighter.settings()


def test_gradnorm_needs_parameters():
    model = torch.nn.ModuleDict(
        {"fpn_output3": torch.nn.Conv2d(1, 1, 1), "other": torch.nn.Linear(1, 1)}
    )
    weighter = GradNorm(*KEYS)
    with pytest.raises(RuntimeError, match=r"give it shared=, or call attach\(model\)"):
        weighter(losses([1.0, 1.0, 1.0]))
    weighter.attach(model)
    assert [x is model["fpn_output3"].weight for x in weighter._shared] == [True]
    assert not list(weighter.parameters())
    with pytest.raises(ValueError, match="parameters of Linear that are not frozen, got .*, which"):
        weighter.attach(torch.nn.Linear(1, 1))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="ModuleDict that are not frozen"):
        weighter.attach(model)
    with pytest.raises(ValueError, match=r"PARAMETERS\): expected a regular expression, got '\('"):
        GradNorm(parameters="(")


def test_gradnorm_refuses_parameters_that_no_loss_depends_on():
    """Without an error its weights would stay 1, at the full cost. A few batches may lack them."""
    layer, unused = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1)
    words = "loss_cls and loss_box_reg depend on .* got some that none did in 4 batches"

    def pair():
        out = layer(torch.ones(1))
        return {"loss_cls": out.square().sum(), "loss_box_reg": 2 * out.square().sum()}

    def train(weighter, *given):
        for losses in given:
            weighter(losses)

    wrong = GradNorm(shared=unused.parameters(), window=3)
    train(wrong, pair(), pair(), pair())
    with pytest.raises(RuntimeError, match=words):
        train(wrong, pair())
    # Parameters that `assign` has replaced are no longer the model's.
    weighter = GradNorm(parameters="weight", window=3)
    weighter.attach(layer)
    train(weighter, pair())
    layer.load_state_dict({"weight": torch.ones(1, 1)}, assign=True)
    with pytest.raises(RuntimeError, match=words + r".* call attach\(model\) again"):
        train(weighter, pair(), pair(), pair(), pair())
    weighter.attach(layer)
    train(weighter, pair())
    assert weighter._norms.tolist() == [2, 4]
    empty = {key: (0 * unused.weight).sum() for key in pair()}
    train(weighter, empty, empty, empty, pair(), empty, empty, empty)
    assert weighter._norms.tolist() == [0, 0]


def test_gradnorm_leaves_out_what_is_frozen_later():
    frozen, free = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    both, one = GradNorm(shared=[frozen, free]), GradNorm(shared=[free])
    frozen.requires_grad_(False)
    x = (frozen * free).square()
    pair = {"loss_cls": x[0], "loss_box_reg": x[1]}
    both.weigh(pair), one.weigh(pair)
    assert torch.equal(both._norms, one._norms) and both._norms.all()
    free.requires_grad_(False)
    with pytest.raises(RuntimeError, match="not frozen, got none"):
        both.weigh(pair)


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: Inverse(form="log"), r"INVERSE.FORM\): expected one of reciprocal, .* got 'log'"),
        (lambda: Inverse(temperature=0), r"TEMPERATURE\): expected a finite number above 0, got 0"),
        (lambda: Inverse(target={"x": 1}), "expected names out of loss_cls, loss_box_reg, got 'x'"),
        (lambda: Inverse(target={"loss_cls": 0}), "'loss_cls': expected a finite number above 0"),
        (lambda: SelfBalance(period=-1), r"PERIOD\): expected an integer of at least 0, got -1"),
        (lambda: SelfBalance(ratio=INF), r"RATIO\): expected a finite number above 0, got inf"),
        (lambda: DWA(window=True), r"WINDOW\): expected an integer of at least 1, got True"),
        (lambda: DWA(sum_to=-1), r"SUM_TO\): expected a finite number of at least 0, got -1"),
        (
            lambda: CoV(decay=1),
            "DECAY.*: expected a finite number of at least 0 and below 1, got 1",
        ),
        (lambda: RLW(seed=-1), "seed: expected an integer of at least 0, got -1"),
        (lambda: FAMO(lr="fast"), r"FAMO.LR\): expected .* got 'fast'"),
        (lambda: GradNorm(alpha=NAN), r"ALPHA\): expected .* got nan"),
        (lambda: Uncertainty(revised=1), r"REVISED\): expected True or False, got 1"),
        (lambda: Uncertainty(start=0), r"START\): expected a finite number above 0, got 0"),
        (lambda: Uncertainty(start=1e60), r"START\): expected 0, or a number of a size"),
        (lambda: DWA(temperature=1e-60), r"TEMPERATURE\): expected 0, or a number of a size"),
        (
            lambda: DWA(temperature=10**400),
            r"TEMPERATURE\): expected 0, or a number of a size",
        ),
    ],
)
def test_refusals(build, words):
    with pytest.raises(ValueError, match=words):
        build()
