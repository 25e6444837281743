"""Label tables written by a real .xls library, and what becomes of damaged and hostile ones."""

import os
import random
import time
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.prepare.label_tables import (
    LabelledClip,
    read_label_table,
    refuse_shared_keys,
    refuse_unlearnt_classes,
    split_validation,
)
from errors import InputError
from tests.frfs_download import write_table

CLIPS = [LabelledClip(f"{n // 7}_{n}", int(n % 5 == 0)) for n in range(50)]


def complaint(path):
    with pytest.raises(InputError) as caught:
        read_label_table(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


@pytest.fixture
def table(tmp_path):
    def write(rows, **choices):
        write_table(tmp_path / "Train.xls", rows, **choices)
        return tmp_path / "Train.xls"

    return write


def write_xlsx(path, sheet_data):
    """Write the least that is an .xlsx."""
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    packages = "http://schemas.openxmlformats.org/package/2006"
    link = (
        '<Relationships xmlns="{}/relationships">'
        '<Relationship Id="r1" Type="{}/{}" Target="{}"/></Relationships>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{packages}/content-types"/>')
        archive.writestr(
            "_rels/.rels", link.format(packages, office, "officeDocument", "xl/workbook.xml")
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            '<sheet name="Sheet1" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            link.format(packages, office, "worksheet", "worksheets/sheet1.xml"),
        )
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f'<worksheet xmlns="{main}"><sheetData>{sheet_data}</sheetData></worksheet>',
        )


def cell(place, text):
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


# ---------------------------------------------------------------- reading


def test_keys_labels_and_rows_are_read(table):
    path = table([("1_1", 0), (12, 1.0), (" a b.c-d ", "1"), ("", ""), ("été", 0)])
    clips = read_label_table(path)
    assert clips == [
        LabelledClip("1_1", 0), LabelledClip("12", 1), LabelledClip("a b.c-d", 1),
        LabelledClip("été", 0),
    ]  # fmt: skip
    assert [clip.row for clip in clips] == [2, 3, 4, 6]


@pytest.mark.parametrize("suffix", [".xlsx", ".xls"])
def test_xlsx_is_read_too_whatever_it_is_called(tmp_path, suffix):
    path = tmp_path / f"Train{suffix}"
    rows = f'<row r="1">{cell("A1", "video")}{cell("B1", "label")}</row>'
    write_xlsx(path, f'{rows}<row r="2">{cell("A2", "1_1")}<c r="B2"><v>1</v></c></row>')
    assert read_label_table(path) == [LabelledClip("1_1", 1)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (("a", "fall"), "['a', 'fall'] must be a clip key and a label, a whole number"),
        (("a", 0.5), "must be a clip key and a label"),
        (("a", -1), "must be a clip key and a label"),
        (("a", True), "must be a clip key and a label"),
        (("a", "1e0"), "must be a clip key and a label"),
        (("a", "٣"), "must be a clip key and a label"),
        (("a", "nan"), "must be a clip key and a label"),
        (("a", ""), "must be a clip key and a label"),
        (("a",), "must be a clip key and a label"),
        (("a", 2), "has label 2: FR-FS has 2 classes, number them 0 to 1"),
        (("a", 1e300), "must be a clip key and a label"),
        (("ok", 1), "repeats clip ok of row 2"),
        (("../a", 1), "'../a' is no folder name below Images/"),
        (("/etc", 1), "is no folder name"),
        (("..", 1), "is no folder name"),
        ((".a", 1), "is no folder name"),
        (("a\0b", 1), "is no folder name"),
        (("a\nb", 1), "is no folder name"),
        (("a" * 4096, 1), "is no folder name"),
        (("é" * 101, 1), "is no folder name"),
        (("", 1), "is no folder name"),
        ((1.5, 1), ""),
    ],
)
def test_a_wrong_row_is_named_with_its_number(table, row, expected):
    path = table([("ok", 0), row])
    if not expected:
        assert read_label_table(path)[1].key == "1.5"
    else:
        message = complaint(path)
        assert f"{path}, row 3" in message
        assert expected in message
        assert len(message) < 600


def test_a_key_that_became_a_date_is_explained(tmp_path):
    import datetime

    import xlwt

    book = xlwt.Workbook()
    sheet = book.add_sheet("Sheet1")
    style = xlwt.easyxf(num_format_str="D-MMM-YY")
    sheet.write(0, 0, "video")
    sheet.write(1, 0, datetime.date(2023, 2, 1), style)
    sheet.write(1, 1, 1)
    book.save(str(tmp_path / "t.xls"))
    assert "row 2: the spreadsheet made a date" in complaint(tmp_path / "t.xls")


def test_tables_without_header_or_rows(table):
    assert "row 1 holds ['a', 1]: its first row must name" in complaint(
        table([("a", 1)], header=False)
    )
    assert "has no rows below its header" in complaint(table([]))
    assert "has no rows" in complaint(table([], header=False))


def test_what_is_no_table(tmp_path):
    path = tmp_path / "Train.xls"
    assert "is missing" in complaint(path)
    for content in (b"", b"<html>404</html>", b"video,label\na,1\n", os.urandom(5000), b"PK\3\4"):
        path.write_bytes(content)
        assert "is not a readable .xls or .xlsx table" in complaint(path)
        path.unlink()
    os.mkfifo(path)
    assert "is missing" in complaint(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is missing" in complaint(path)


@pytest.mark.parametrize("last", ["XFD1048576", "DX1048576"])  # 550 and 4 gigabytes
def test_a_table_that_asks_for_gigabytes_is_refused(tmp_path, last):
    path = tmp_path / "Train.xlsx"
    write_xlsx(path, f'<row r="1">{cell("A1", "v")}</row><row r="9">{cell(last, "x")}</row>')
    start = time.thread_time()
    assert "is not a readable" in complaint(path)
    assert time.thread_time() - start < 5


def test_a_table_with_endless_rows_is_refused(tmp_path):
    path = tmp_path / "Train.xlsx"
    path.write_bytes(b"PK")
    os.truncate(path, 2**31)
    assert "a label table has a few thousand" in complaint(path)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_tables_give_clips_or_one_line(table, seed, tmp_path):
    data = table([(f"{n}_1", n % 2) for n in range(30)]).read_bytes()
    rng = random.Random(seed)
    path = tmp_path / "mutated.xls"
    for _ in range(30):
        mutated = bytearray(data)
        for _ in range(rng.choice((1, 3, 10, 40))):
            mutated[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))
        path.write_bytes(mutated[: rng.choice((None, rng.randrange(len(data))))])
        start = time.thread_time()
        message = None
        try:
            assert read_label_table(path)
        except InputError as error:
            message = str(error)
        assert message is None or (str(path) in message and len(message.splitlines()) == 1)
        assert time.thread_time() - start < 5


# ---------------------------------------------------------------- choices


def test_shared_keys_and_unlearnt_classes():
    with pytest.raises(InputError, match=r"clip b is in row 3 .* in row 7 .* 1 clips in all"):
        refuse_shared_keys(
            [LabelledClip("a", 0, 2), LabelledClip("b", 0, 3)], [LabelledClip("b", 1, 7)]
        )
    with pytest.raises(InputError, match="test clip c has label 1, of which no training clip"):
        refuse_unlearnt_classes([LabelledClip("a", 0)], [LabelledClip("c", 1)])
    with pytest.raises(InputError, match="all training clips have label 0"):
        refuse_unlearnt_classes([LabelledClip("a", 0)], [LabelledClip("c", 0)])


def test_validation_is_stratified_and_reproducible():
    train, val = split_validation(CLIPS, 0.2, 0)
    assert [sum(c.label == k for c in val) for k in (0, 1)] == [8, 2]
    assert sorted(train + val, key=CLIPS.index) == CLIPS
    assert split_validation(CLIPS, 0.2, 0) == (train, val)
    assert split_validation(CLIPS, 0.2, 1) != (train, val)
    assert split_validation(CLIPS[::-1], 0.2, 0)[1] == val[::-1]


@given(st.floats(0, 0.999), st.integers(0, 2**32 - 1))
def test_both_sides_have_every_class(fraction, seed):
    for clips in split_validation(CLIPS, fraction, seed):
        assert {clip.label for clip in clips} == {0, 1}


@given(st.integers(0, 49), st.integers(0, 99))
def test_leaving_out_a_clip_moves_at_most_one_other(index, seed):
    _, val = split_validation(CLIPS, 0.3, seed)
    rest = CLIPS[:index] + CLIPS[index + 1 :]
    _, other = split_validation(rest, 0.3, seed)
    moved = ({c.key for c in val} ^ {c.key for c in other}) - {CLIPS[index].key}
    assert len(moved) <= 1


@given(st.lists(st.integers(0, 9), min_size=50, max_size=50), st.floats(0, 0.99))
def test_clips_of_the_same_content_stay_together(contents, fraction):
    of = {clip.key: f"{clip.label}{n}" for clip, n in zip(CLIPS, contents, strict=True)}
    try:
        train, val = split_validation(CLIPS, fraction, 0, of)
    except InputError:
        return
    assert not {of[c.key] for c in train} & {of[c.key] for c in val}
    assert train
    assert val


def test_a_class_with_one_clip_cannot_be_split():
    clips = [LabelledClip("a", 0), LabelledClip("b", 0), LabelledClip("c", 1)]
    with pytest.raises(InputError, match="class 1 has a single"):
        split_validation(clips, 0.2, 0)
