"""What windows share is computed once, and changes no answer."""

import numpy as np
import pytest
import torch

from datasets.views import Crop
from errors import InputError
from ops.skeleton import COCO17
from prediction.scoring import Question, Scorer, pick_frames
from prediction.sharing import SplitNetwork
from prediction.windows import Span
from tests.small_networks import small_network
from transforms import eval_geometries

SIZE = (64, 48)
LENGTH, STRIDE = 16, 8


def crops_of(network, count):
    return tuple(map(Crop, eval_geometries(*SIZE, network.config.input.input_size, count)))


def questions(network, count=4, crops=1, num_clips=1, people=(0,)):
    spec = network.config.input
    rng = np.random.default_rng(0)
    total = LENGTH + STRIDE * (count - 1)
    video = rng.integers(0, 255, (total, *SIZE[::-1], 3), dtype=np.uint8)
    tracks = rng.uniform(5, 40, (total, len(people), 1, 17, 3)).astype(np.float32)
    tracks[..., 2] = 0.9
    views = crops_of(network, crops)
    asked = []
    for number in range(count):
        first = number * STRIDE
        used, place = pick_frames(spec, LENGTH, num_clips)
        frames = video[first + used]
        images = np.stack([crop.apply_to_frames(frames) for crop in views], axis=1)
        for slot, who in enumerate(people):
            span = Span(first / 8, (first + LENGTH) / 8, first, first + LENGTH - 1)
            own = tracks[first : first + LENGTH, slot]
            asked.append(
                Question(
                    span,
                    who,
                    place,
                    used,
                    images if spec.has_frames else None,
                    own if spec.has_poses else None,
                )
            )
    return asked


def scorer(network, share, crops=1, batch_size=8):
    return Scorer(network, crops_of(network, crops), SIZE, COCO17, batch_size, share)


@pytest.mark.parametrize("mode", ["rgb", "early", "late", "fast"])
@pytest.mark.parametrize("gsf", [True, False])
@pytest.mark.parametrize("views", [(1, 1), (3, 2), (10, 1)])
def test_shared_equals_not_shared(mode, gsf, views):
    network = small_network(mode, *(["--gsf"] if gsf else []))
    crops, num_clips = views
    asked = questions(network, 3, crops, num_clips)
    shared, alone = (scorer(network, share, crops) for share in (True, False))
    assert alone.cache is None
    answers = alone.ask(asked)
    assert answers[:, 0].std() > 1e-4
    np.testing.assert_allclose(shared.ask(asked), answers, atol=1e-5)
    assert shared.cache.computed < shared.cache.asked


@pytest.mark.parametrize(
    ("flags", "what"), [(("--gsf",), "first layers"), ((), "backbone features")]
)
def test_a_frame_of_two_windows_goes_through_the_front_once(flags, what):
    network = small_network("rgb", *flags)
    runs = []
    front = network.model.encoder.backbone.conv1
    front.register_forward_hook(lambda _, given, __: runs.append(len(given[0])))
    shared = scorer(network, share=True)
    assert shared.cache.split.what == what
    shared.ask(questions(network, 5))
    # 4 frames of the first window, then 2 new ones of each further window.
    assert sum(runs) == shared.cache.computed == 4 + 4 * 2
    assert shared.cache.asked == 5 * 4


def test_the_rest_of_the_network_runs_once_for_each_window():
    network = small_network("rgb", "--gsf")
    shared = scorer(network, share=True)
    rows = []
    layers = shared.cache.split.rest.encoder.backbone.layers[0]
    layers.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    shared.ask(questions(network, 5))
    assert sum(rows) == 5 * 4


def test_people_do_not_share_their_heatmaps_but_the_picture():
    for mode, computed in (("early", 2 * (4 + 2)), ("late", 4 + 2)):
        network = small_network(mode)
        asked = questions(network, 2, people=(0, 1))
        shared, alone = scorer(network, True), scorer(network, False)
        np.testing.assert_allclose(shared.ask(asked), alone.ask(asked), atol=1e-5)
        assert shared.cache.computed == computed


def test_the_network_itself_is_left_as_it_was():
    network = small_network("late", "--gsf")
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    scorer(network, True).ask(questions(network))
    after = network.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_forgotten_frames_leave_the_memory():
    network = small_network("rgb")
    shared = scorer(network, True)
    for question in questions(network, 20):
        shared.ask([question])
        shared.forget(question.span.first + STRIDE)
        assert len(shared.cache._known) <= 4


def test_skeletons_alone_have_nothing_to_share():
    assert SplitNetwork.of(small_network("pose")) is None
    network = small_network("pose")
    answers = scorer(network, True).ask(questions(network))
    assert answers.shape == (4, 2)
    np.testing.assert_allclose(answers.sum(1), 1)


def test_the_size_of_the_batches_changes_nothing():
    network = small_network("late")
    asked = questions(network, 4, crops=3, num_clips=2)
    answers = [scorer(network, False, 3, size).ask(asked) for size in (1, 5, 64)]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-6)


def test_answers_that_are_no_numbers_stop_with_the_reason():
    network = small_network("rgb")
    with torch.no_grad():
        network.model.head.linear.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        scorer(network, False).ask(questions(network, 1))
