"""Anchors are made once for feature maps of given sizes, and are Detectron2's to the bit."""

import copy
import io
from unittest import mock

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

import test_fcos
import test_rcnn
import test_retinanet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes

from alwa_d2.modeling import AlwaFCOS
from alwa_d2.modeling.anchors import (
    MOST_KEPT,
    KeptAnchorGenerator,
    LevelAnchors,
    cat_anchors,
    keep_anchors_of,
)
from alwa_d2.weighting import ALWA


def make_generator(keeps=True):
    generator = DefaultAnchorGenerator(
        sizes=[[8, 16], [32, 64]], aspect_ratios=[[0.5, 1.0]], strides=[4, 8], offset=0.5
    )
    if keeps:
        keep_anchors_of(generator)
    return generator


def features(height=5, width=3, device="cpu"):
    return [torch.zeros(1, 1, height * k, width * k, device=device) for k in (2, 1)]


def assert_stock(anchors, maps):
    expected = make_generator(keeps=False)(maps)
    assert len(anchors) == len(expected)
    for ours, theirs in zip(anchors, expected):
        assert type(ours) is Boxes and torch.equal(ours.tensor, theirs.tensor)
    assert torch.equal(cat_anchors(anchors).tensor, Boxes.cat(expected).tensor)


def memory(anchors):
    return cat_anchors(anchors).tensor.data_ptr()


def test_anchors_are_kept_and_are_parts_of_one_tensor():
    generator = make_generator()
    first, second = generator(features()), generator(features())
    for anchors in (first, second):
        assert_stock(anchors, features())
        assert memory(anchors) == memory(first) == anchors[0].tensor.data_ptr()
    # Boxes are new ones each time: clip() of one, which replaces its tensor, does not reach others.
    second[0].clip((1, 1))
    assert_stock(first, features())
    assert_stock(generator(features()), features())


def test_only_the_last_sizes_are_kept():
    generator = make_generator()
    first = memory_before = generator(features(1))
    for height in range(2, MOST_KEPT + 1):
        generator(features(height))
    assert memory(generator(features(1))) == memory(first)  # now the most recently used one
    generator(features(MOST_KEPT + 1))
    assert len(generator._kept) == MOST_KEPT
    assert memory(generator(features(1))) == memory(memory_before)
    with mock.patch.object(DefaultAnchorGenerator, "forward", side_effect=AssertionError):
        generator(features(3))
        with pytest.raises(AssertionError):
            generator(features(2))


def change_in_place(generator):
    generator.cell_anchors._buffers["0"].add_(1)


def replace_cells(generator):
    generator.cell_anchors._buffers["0"] = generator.cell_anchors._buffers["0"] + 1


def other_strides(generator):
    generator.strides = [8, 16]


def other_offset(generator):
    generator.offset = 0.0


@pytest.mark.parametrize("change", [change_in_place, replace_cells, other_strides, other_offset])
def test_other_cells_give_other_anchors(change):
    generator, stock = make_generator(), make_generator(keeps=False)
    generator(features())
    for x in (generator, stock):
        change(x)
    for ours, theirs in zip(generator(features()), stock(features()), strict=True):
        assert torch.equal(ours.tensor, theirs.tensor)


def test_anchors_that_somebody_changed_are_made_anew():
    generator = make_generator()
    generator(features())[1].scale(2.0, 2.0)  # in place
    assert_stock(generator(features()), features())


def test_moving_or_casting_the_model_gives_up_what_was_kept():
    generator = make_generator()
    first = generator(features())
    generator.double().float()
    second = generator(features())
    assert_stock(second, features())
    assert memory(first) != memory(second)


def test_inference_mode_leaves_nothing_that_training_cannot_use():
    generator = make_generator()
    with torch.inference_mode():
        assert_stock(generator(features()), features())
    anchors = cat_anchors(generator(features())).tensor
    assert not anchors.is_inference()
    with torch.inference_mode():
        assert memory(generator(features())) == anchors.data_ptr()


def test_copies_and_files_come_without_anchors():
    generator = make_generator()
    first = generator(features())
    other = copy.deepcopy(generator)
    assert other._kept is None and memory(other(features())) != memory(first)
    file = io.BytesIO()
    torch.save(generator, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert loaded._kept is None
    assert_stock(loaded(features()), features())
    assert generator.state_dict().keys() == make_generator(keeps=False).state_dict().keys()


def test_nothing_is_kept_while_tracing_or_compiling():
    generator = make_generator()
    traced = torch.jit.trace(
        lambda *x: [y.tensor for y in generator(list(x))],
        tuple(features()),
        check_trace=False,  # which calls it without tracing
    )
    compiled = torch.compile(
        lambda x: [y.tensor for y in generator(x)], fullgraph=True, backend="aot_eager"
    )
    assert generator._kept is None
    for found in (traced(*features()), compiled(features())):
        assert_stock([Boxes(x) for x in found], features())
    assert generator._kept is None


def test_generators_of_somebodys_own_stay_as_they_are():
    class Own(DefaultAnchorGenerator):
        pass

    generator = Own(sizes=[[8]], aspect_ratios=[1.0], strides=[4])
    keep_anchors_of(generator)
    assert type(generator) is Own


def parts_that_make_anchors():
    yield test_retinanet.make_model()
    yield test_fcos.make_fcos(AlwaFCOS, loss_weighter=ALWA("loss_fcos_cls", "loss_fcos_loc"))
    yield test_rcnn.make_model()


def test_a_training_step_changes_no_anchors():
    """Of every model, in training and in inference: the second step finds what the first made."""
    for model in parts_that_make_anchors():
        generator = getattr(model, "proposal_generator", model).anchor_generator
        assert type(generator) is KeptAnchorGenerator
        batch = test_rcnn.make_batch()
        test_rcnn.losses_and_gradients(model, batch)
        (entry,) = generator._kept.values()
        before, version = entry.all_levels.clone(), entry.all_levels._version
        test_rcnn.losses_and_gradients(model, batch)
        with torch.no_grad():
            model.eval()(batch)
        assert list(generator._kept.values()) == [entry]
        assert torch.equal(entry.all_levels, before) and entry.all_levels._version == version


def test_boxes_that_somebody_has_changed_are_what_counts():
    anchors = LevelAnchors(torch.tensor([[-5.0, 0, 4, 4], [1, 1, 2, 2]]), [1, 1])
    assert cat_anchors(anchors).tensor is anchors.all_levels
    anchors[0].clip((10, 10))
    assert cat_anchors(anchors).tensor.tolist() == [[0, 0, 4, 4], [1, 1, 2, 2]]
    assert anchors.all_levels[0, 0] == -5
