"""Raw FR-FS to frames and lists, with tables written by a real .xls library."""

import cv2
import numpy as np
import pytest
import xlwt

import process_dataset_FRFS
from datasets.frfs import LabelledClip, natural_key, read_label_table, split_validation
from errors import InputError


def write_table(path, rows):
    book = xlwt.Workbook()
    sheet = book.add_sheet("Sheet1")
    for number, row in enumerate([("video", "label"), *rows]):
        for column, value in enumerate(row):
            sheet.write(number, column, value)
    book.save(str(path))


@pytest.fixture
def download(tmp_path):
    """Six training and two test clips with unpadded, 0-based names."""
    root = tmp_path / "FRFS"
    for number in range(8):
        folder = root / "Images" / f"{number}_1"
        folder.mkdir(parents=True)
        for frame in range(12):
            image = np.full((6, 8, 3), 10 * frame, np.uint8)
            cv2.imwrite(str(folder / f"{frame}.jpg"), image)
    write_table(root / "Train.xls", [(f"{n}_1", n % 2) for n in range(6)])
    write_table(root / "Test.xls", [(f"{n}_1", n % 2) for n in (6, 7)])
    return tmp_path


def run(path, *more):
    process_dataset_FRFS.main(["--dataset_path", str(path), *more])


def lines(root, split):
    return (root / "FRFS" / f"{split}_videofolder.txt").read_text().splitlines()


def test_lists_and_frames(download):
    run(download, "--val_fraction", "0.34")
    assert lines(download, "test") == ["6_1 12 0", "7_1 12 1"]
    assert (len(lines(download, "train")), len(lines(download, "val"))) == (4, 2)
    assert {line.split()[2] for line in lines(download, "val")} == {"0", "1"}
    frames = sorted((download / "FRFS" / "frames" / "6_1").iterdir())
    assert [frames[0].name, frames[-1].name] == ["00001.jpg", "00012.jpg"]


def test_defect_33_frames_keep_their_order_and_the_source_stays(download):
    run(download)
    folder = download / "FRFS" / "frames" / "0_1"
    shades = [cv2.imdecode(np.fromfile(p, np.uint8), 0).mean() for p in sorted(folder.iterdir())]
    assert shades == pytest.approx([10 * n for n in range(12)], abs=1.5)
    assert (download / "FRFS" / "Images" / "0_1" / "10.jpg").is_file()


def test_defect_12_no_test_clip_chooses_the_epoch(download):
    run(download)
    assert not set(lines(download, "val")) & set(lines(download, "test"))


def test_running_again_changes_nothing(download):
    run(download)
    before = {split: lines(download, split) for split in ("train", "val", "test")}
    run(download)
    assert {split: lines(download, split) for split in before} == before


def test_a_prepared_data_set_is_accepted(download, capsys):
    run(download)
    (download / "FRFS" / "Images").rename(download / "elsewhere")
    run(download)
    assert "already prepared" in capsys.readouterr().out


def test_nothing_there_says_what_is_needed(tmp_path):
    with pytest.raises(InputError, match="unpack FR-FS there"):
        run(tmp_path)


def test_a_missing_clip_folder_writes_no_list(download):
    write_table(download / "FRFS" / "Test.xls", [("9_9", 0)])
    with pytest.raises(InputError, match="9_9 holds no .jpg or .png frames"):
        run(download)
    assert list((download / "FRFS").glob("*.txt")) == []


def test_a_clip_in_both_tables_is_refused(download):
    write_table(download / "FRFS" / "Test.xls", [("0_1", 0)])
    with pytest.raises(InputError, match="clip 0_1 is in"):
        run(download)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "fall")], "row 2"),
        ([("a", 0.5)], "row 2"),
        ([("a", -1)], "row 2"),
        ([("../a", 1)], "no folder name"),
        ([], "no rows"),
    ],
)
def test_bad_tables(tmp_path, rows, message):
    write_table(tmp_path / "t.xls", rows)
    with pytest.raises(InputError, match=message):
        read_label_table(tmp_path / "t.xls")


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "t.xls").write_text("<html>404</html>")
    with pytest.raises(InputError, match="not a readable"):
        read_label_table(tmp_path / "t.xls")


def test_numeric_keys_stay_whole(tmp_path):
    write_table(tmp_path / "t.xls", [(12, 1.0)])
    assert read_label_table(tmp_path / "t.xls") == [LabelledClip("12", 1)]


def test_validation_is_stratified_and_reproducible():
    clips = [LabelledClip(str(n), int(n % 5 == 0)) for n in range(50)]
    train, val = split_validation(clips, 0.2, np.random.default_rng(0))
    assert [sum(c.label == k for c in val) for k in (0, 1)] == [8, 2]
    assert sorted(train + val, key=lambda c: int(c.key)) == clips
    assert split_validation(clips, 0.2, np.random.default_rng(0)) == (train, val)


def test_a_class_with_one_clip_cannot_be_split():
    clips = [LabelledClip("a", 0), LabelledClip("b", 0), LabelledClip("c", 1)]
    with pytest.raises(InputError, match="class 1 has a single"):
        split_validation(clips, 0.2, np.random.default_rng(0))


def test_natural_order():
    assert sorted(["f10", "f2", "f1", "g0"], key=natural_key) == ["f1", "f2", "f10", "g0"]
