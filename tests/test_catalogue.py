import pytest

from datasets.catalogue import find_row


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [
        ("FRFS", 2),
        ("diving48", 48),
        ("something-v1", 174),
        ("something-v2", 174),
        ("kinetics400", 400),
        ("meccano", 61),
        ("synthetic", 2),
    ],
)
def test_defect_28_every_published_data_set_has_a_row(name, num_classes):
    row = find_row(name)
    assert (row.name, row.folder, row.num_classes) == (name, name, num_classes)
    assert row.class_names is None or len(row.class_names) == num_classes


def test_labels_that_tell_left_from_right_forbid_the_mirror():
    rows = [find_row(name) for name in ("something-v1", "something-v2", "FRFS", "synthetic")]
    assert [row.may_flip for row in rows] == [False, False, True, True]


def test_no_class_of_frfs_is_called_a_fall():
    assert find_row("FRFS").class_names is None


def test_any_other_name_is_a_data_set_of_the_users_own():
    row = find_row("my-jumps")
    assert (row.folder, row.num_classes, row.may_flip) == ("my-jumps", None, True)
