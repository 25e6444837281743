"""The clips of splits: all that are named, or a line that says why not."""

import numpy as np
import pytest

from datasets.annotations.choosing import choose_clips
from errors import InputError
from tests.making_annotations import annotation, opened

SPLITS = {"train1": list("abcd"), "test1": list("ef"), "other": list("gh"), "same": list("ef")}


def held(**changes):
    made = [annotation(name, label=n % 2, frames=n + 1) for n, name in enumerate("abcdefgh")]
    for one in made:
        one.update(changes.get(one["frame_dir"], {}))
    return made


def choose(folder, splits=None, chosen=None, skip=False, changes=None, **options):
    found = opened(folder, held(**(changes or {})), splits or SPLITS)
    chosen = chosen or {"train": "train1", "val": "test1", "test": None}
    return choose_clips(found, chosen, skip=skip, **options)


def test_the_clips_of_the_splits_in_their_order(tmp_path):
    chosen = choose(tmp_path)
    assert [(r.name, r.num_frames, r.label) for r in chosen.records["train"]] == [
        ("a", 1, 0),
        ("b", 2, 1),
        ("c", 3, 0),
        ("d", 4, 1),
    ]
    assert [r.name for r in chosen.records["val"]] == ["e", "f"]
    assert chosen.left_out == {"train": (), "val": ()}
    assert chosen.num_classes == 2
    assert chosen.warnings == ()


def test_without_a_val_split_train_is_cut_by_class(tmp_path):
    splits = {"train": [str(n) for n in range(40)], "test": ["40"]}
    made = [annotation(str(n), label=n % 4) for n in range(41)]
    chosen = choose_clips(
        opened(tmp_path, made, splits), {"train": "train", "val": None, "test": "test"}
    )
    sizes = {kind: len(records) for kind, records in chosen.records.items()}
    assert sum(sizes.values()) == 41
    assert sizes["test"] == 1
    assert {r.label for r in chosen.records["val"]} == {0, 1, 2, 3}
    names = [r.name for records in chosen.records.values() for r in records]
    assert len(set(names)) == 41


BROKEN = {"b": {"total_frames": 9}, "e": {"keypoint": np.full((2, 5, 17, 2), np.nan)}}


def test_broken_clips_of_these_splits_stop_it_and_are_left_out_when_that_is_said(tmp_path):
    with pytest.raises(InputError, match="has 2 broken clips in split train1 and test1") as error:
        choose(tmp_path, changes=BROKEN)
    assert "clip 'b' has 2 frames of keypoints and total_frames 9" in str(error.value)
    assert "--skip_broken" in str(error.value)
    chosen = choose(tmp_path, skip=True, changes=BROKEN)
    assert [r.name for r in chosen.records["train"]] == list("acd")
    assert [r.name for r in chosen.records["val"]] == ["f"]
    assert chosen.left_out == {"train": ("b",), "val": ("e",)}


def test_broken_clips_of_other_splits_do_not_matter(tmp_path):
    chosen = choose(tmp_path, changes={"g": {"total_frames": 9, "label": None}})
    assert chosen.left_out == {"train": (), "val": ()}


def test_a_missing_annotation_matters_to_its_own_split_alone(tmp_path):
    splits = {**SPLITS, "other": ["a", "gone"]}
    assert choose(tmp_path, splits=splits).left_out == {"train": (), "val": ()}
    chosen = {"train": "other", "val": "test1"}
    with pytest.raises(InputError, match="clip 'gone' is in split 'other', but has no annotation"):
        choose(tmp_path, splits=splits, chosen=chosen)
    found = choose(tmp_path, splits=splits, chosen=chosen, skip=True)
    assert [r.name for r in found.records["train"]] == ["a"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"train": "x"}, "has no split 'x': give --train_split one of train1, test1, other, same"),
        ({"train": "train1", "val": "none"}, "has no clip in split 'none'"),
        ({"train": "test1", "val": "same"}, "2 clips in both the train split 'test1' and the val"),
        ({"val": "test1", "test": "part"}, "1 clips in both the val split 'test1' and the test"),
    ],
)
def test_splits_that_cannot_be_used(tmp_path, chosen, message):
    with pytest.raises(InputError, match=message):
        choose(tmp_path, splits={**SPLITS, "none": [], "part": ["e", "g"]}, chosen=chosen)


def test_val_and_test_may_be_the_same(tmp_path):
    chosen = choose(tmp_path, chosen={"train": "train1", "val": "test1", "test": "same"})
    assert chosen.records["val"] == chosen.records["test"]


def test_labels_beyond_the_classes_are_refused(tmp_path):
    with pytest.raises(InputError, match="label 1, it should be below 1"):
        choose(tmp_path, num_classes=1)
    assert choose(tmp_path, num_classes=5).num_classes == 5
    without = {name: {"label": None} for name in "abcdefgh"}
    with pytest.raises(InputError, match="has no labels"):
        choose(tmp_path, changes=without)


def test_a_split_of_broken_clips_alone_is_refused(tmp_path):
    changes = {name: {"label": -1} for name in "ef"}
    with pytest.raises(InputError, match="has no usable clip in split 'test1'"):
        choose(tmp_path, skip=True, changes=changes)


def test_warnings_are_one_line_a_kind(tmp_path):
    chosen = choose(tmp_path, changes={name: {"img_shape": None} for name in "abcde"})
    (line,) = chosen.warnings
    assert line.endswith(
        "5 clips ('a', 'b', 'c' and 2 more), such as the first, has no img_shape: what scales "
        "keypoints by the size of the frame needs it"
    )


def test_lists_that_are_not_used_need_not_be_usable(tmp_path):
    splits = {"train": [*"abc", "gone"], "val": [], "test": list("aef")}
    changes = {"b": {"total_frames": 9}}
    chosen = {kind: kind for kind in splits}
    found = choose(tmp_path, splits, chosen, changes=changes, used=["test"])
    names = {kind: [record.name for record in clips] for kind, clips in found.records.items()}
    assert names == {"train": ["a", "c"], "test": ["a", "e", "f"]}
    with pytest.raises(InputError, match="has no clip in split 'val'"):
        choose(tmp_path, splits, chosen, changes=changes, used=["val", "test"])
    with pytest.raises(InputError, match="2 broken clips in split train and test"):
        choose(tmp_path, splits, {**chosen, "val": None}, changes=changes)


def test_lists_may_share_clips_where_that_is_asked_for(tmp_path):
    splits = {"train": list("abcd"), "test": list("def")}
    chosen = {"train": "train", "val": "test"}
    with pytest.raises(InputError, match="choose splits that share none, or add --allow_overlap"):
        choose(tmp_path, splits, chosen)
    found = choose(tmp_path, splits, chosen, allow_overlap=True)
    assert len(found.records["train"]) + len(found.records["val"]) == 7


def test_clips_of_no_size_are_left_out_where_it_is_needed(tmp_path):
    changes = {"a": {"img_shape": None}}
    assert choose(tmp_path, changes=changes, needs_size=True).left_out["train"] == ()
    assert choose(tmp_path, changes=changes, skip=True).left_out["train"] == ()
    found = choose(tmp_path, changes=changes, skip=True, needs_size=True)
    assert found.left_out == {"train": ("a",), "val": ()}


def test_val_that_cannot_be_cut_off_names_the_file_and_the_way_out(tmp_path):
    made = [annotation(str(n), label=n) for n in range(3)]
    found = opened(tmp_path, made, {"train": list("012")})
    with pytest.raises(InputError, match=r"x\.pkl.*Or give --val_split"):
        choose_clips(found, {"train": "train"})
