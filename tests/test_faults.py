"""Every fault of `tests/faults.py` has tests, they exist, and the documentation names them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.faults import FAULTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "RELIABILITY.md"


@cache
def functions_of(file):
    """Return the tests of a file that are not skipped whatever happens."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in found if not is_left_out(node)}


def is_left_out(function):
    marks = [ast.unparse(mark) for mark in function.decorator_list]
    return any(re.match(r"pytest\.mark\.(skip|xfail)\b(?!if)", mark) for mark in marks)


def test_there_are_thirty_faults():
    assert list(FAULTS) == list(range(1, 31))


@pytest.mark.parametrize("number", FAULTS)
def test_every_fault_has_tests_that_exist(number):
    named = FAULTS[number].tests
    assert named
    assert len(named) == len(set(named))
    for test in named:
        file, name = test.split("::")
        assert f"test_{name}" in functions_of(f"tests/test_{file}.py"), test


def row_of(number):
    """Return the cells of a fault in the table of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| {number} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("number", FAULTS)
def test_the_page_says_what_the_table_says(number):
    fault = FAULTS[number]
    _, name, outcome, files = row_of(number)
    assert name == fault.name + (" (simulated)" if fault.note else "")
    assert outcome == fault.outcome
    assert files == ", ".join(f"`test_{file}.py`" for file in fault.files)


def test_the_page_has_room_for_what_must_be_shown():
    text = PAGE.read_text(encoding="utf-8")
    for word in ("kill -9", "Signals", "Bitwise", "processes", "Fuzzed", "shards", "Checkpointing"):
        assert word in text
