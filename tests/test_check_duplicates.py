import time

import cv2
import numpy as np
import pytest

from datasets.check.duplicates import (
    NUM_FRAMES,
    describe,
    find_near_duplicates,
    sample_indices,
    shrink,
)
from datasets.frames import decode_image
from tests.scenes import write_clip


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Return 12 clips (N, H, W, 3) that all differ."""
    root = tmp_path_factory.mktemp("films")
    films = []
    for seed in range(12):
        write_clip(root / str(seed), seed)
        films.append(np.stack([decode_image(p) for p in sorted((root / str(seed)).iterdir())]))
    return films


def signature(film):
    return describe([shrink(film[i]) for i in sample_indices(len(film))])


def pairs(ones, others):
    signatures = [signature(film) for film in (*ones, *others)]
    groups = [0] * len(ones) + [1] * len(others)
    return {(pair.one, pair.other) for pair in find_near_duplicates(signatures, groups)}


def smaller(film):
    return np.stack([cv2.resize(f, None, fx=0.5, fy=0.5) for f in film])


def brighter(film):
    return np.clip(film * 0.8 + 40, 0, 255).astype(np.uint8)


def poorer(film):
    return np.stack(
        [cv2.imdecode(cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 25])[1], 1) for f in film]
    )


def faster(film):
    return film[::2]


@pytest.mark.parametrize("change", [smaller, brighter, poorer, faster])
def test_a_copy_is_found_and_nothing_else(films, change):
    copies = [change(film) for film in films]
    assert pairs(films, copies) == {(i, i + len(films)) for i in range(len(films))}


def test_different_clips_are_not_found(films):
    assert pairs(films[:6], films[6:]) == set()


def test_clips_of_one_camera_are_told_apart_by_what_moves(films):
    place = films[0][0].astype(np.float32)
    same_place = [np.clip(place + 0.5 * (f - f.mean(0)), 0, 255).astype(np.uint8) for f in films]
    assert pairs(same_place[:6], same_place[6:]) == set()
    assert pairs(same_place, [poorer(f) for f in same_place]) >= {(i, i + 12) for i in range(12)}


def test_still_clips_are_compared_by_the_place(films):
    still = [np.repeat(film[:1], len(film), axis=0) for film in films]
    assert pairs(still, [poorer(film) for film in still]) == {(i, i + 12) for i in range(12)}


def test_clips_of_one_group_are_not_compared(films):
    signatures = [signature(films[0])] * 3
    assert find_near_duplicates(signatures, [0, 0, 0]) == []


def test_an_empty_picture_has_no_signature():
    black = np.zeros((NUM_FRAMES, 12, 12), np.float32)
    assert describe(list(black)) is None


@pytest.mark.parametrize("kind", ["all different", "all the same"])
def test_work_grows_with_the_clips_and_not_with_their_pairs(kind):
    rng = np.random.default_rng(0)

    def seconds(count):
        films = rng.uniform(0, 255, (count, NUM_FRAMES, 12, 12)).astype(np.float32)
        if kind == "all the same":
            films[:] = films[0]
        signatures = [describe(list(film)) for film in films]
        groups = list(np.arange(count) % 2)
        start = time.process_time()
        found = find_near_duplicates(signatures, groups)
        return time.process_time() - start, found, groups

    _, (short, _, _), (long, found, groups) = map(seconds, (100, 1000, 4000))
    assert long < 12 * max(short, 0.04)  # 4 times the clips; 16 times if all pairs were compared
    if kind == "all the same":
        assert len({pair.other for pair in found}) == len(found) > 3990
        assert all(groups[pair.one] != groups[pair.other] for pair in found)
