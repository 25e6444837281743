"""What is wrong with the splits of an annotation pickle."""

import pytest

from tests.making_annotations import annotation, found_in


def test_splits(tmp_path):
    splits = {
        "xsub_train": ["a", "b", "gone", "a"],
        "xsub_val": ["b"],
        "xview_train": ["b"],
        "xview_val": [],
        "val": ["a"],
        "test": ["a"],
    }
    found = found_in(tmp_path, [annotation("a"), annotation("b")], splits)
    assert found == [
        ("error", "gone", "split", "is in split 'xsub_train', but has no annotation"),
        ("warning", "", "split", "names 1 clips of split 'xsub_train' twice"),
        ("error", "", "split", "has no clip in split 'xview_val'"),
        (
            "error",
            "",
            "split",
            "has 1 clips in both split 'xsub_train' and 'xsub_val', such as 'b'",
        ),
        ("warning", "", "split", "has 1 clips in both split 'val' and 'test', such as 'a'"),
    ]


@pytest.mark.parametrize(
    ("one", "other", "others", "is_told"),
    [
        ("train", "val", [], True),
        ("train", "eval", [], True),
        ("Training", "Dev", [], True),
        ("mini_train", "mini_test", [], True),
        ("train", "test1", [], True),
        ("test", "train1", [], True),
        ("train", "xsub_val", [], True),
        ("train1", "test2", ["test1", "train2"], False),
        ("train", "xsub_val", ["val", "xsub_train"], False),
        ("xsub_train", "xset_val", [], False),
        ("train", "all", [], False),
        ("trainval", "val", [], False),
        ("trainval", "test", ["val"], True),
    ],
)
def test_splits_that_belong_together_share_no_clip(tmp_path, one, other, others, is_told):
    splits = {one: ["a", "b"], other: ["b"], **{name: ["c"] for name in others}}
    found = found_in(tmp_path, [annotation(name) for name in "abc"], splits)
    text = f"has 1 clips in both split {one!r} and {other!r}, such as 'b'"
    assert found == [("error", "", "split", text)] * is_told
