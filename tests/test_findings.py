"""Findings are counted by kind, and the first few of each are kept and printed."""

import importlib
import re
from pkgutil import iter_modules

import pytest

from alwa_d2 import data
from alwa_d2._show import counted
from alwa_d2.data.findings import (
    ERROR,
    KEPT,
    MISSING_IMAGE,
    WARNING,
    ZERO_AREA,
    Findings,
    Kind,
    left_out,
    note_left_out,
)


def some(numbers, kind=ZERO_AREA):
    findings = Findings()
    for number in numbers:
        findings.add(kind, f"{number}.xml", "object 1 (dog)", "3, 4, 3, 9")
    return findings


def test_counted_and_the_first_few_kept():
    findings = some(range(5))
    assert findings.counts == {ZERO_AREA: 5}
    assert [each.file for each in findings.first[ZERO_AREA]] == ["0.xml", "1.xml", "2.xml"]
    assert findings.number(WARNING) == 5 and findings.number(ERROR) == 0
    assert findings.summary() == ("5 boxes of zero area (first: 0.xml, object 1 (dog): 3, 4, 3, 9)")
    assert some([7]).summary().startswith("1 box of zero area (first: 7.xml")
    assert Findings().summary() == "nothing"


@pytest.mark.parametrize(
    "plural, one",
    [
        ("boxes of zero area", "box of zero area"),
        ("classes without a box", "class without a box"),
        ("class numbers without a class", "class number without a class"),
        ("TIFF files of several pages", "TIFF file of several pages"),
        ("data sets that cannot be read", "data set that cannot be read"),
        ("more masks of another size", "more mask of another size"),
        ("processes", "process"),
    ],
)
def test_one_of_a_kind_is_in_the_singular(plural, one):
    assert counted(1, plural) == f"1 {one}"
    assert [counted(n, plural) for n in (0, 2, 1234)] == [
        f"{n} {plural}" for n in ("0", "2", "1,234")
    ]


def test_names_of_kinds_have_a_singular():
    """One word of them changes: a verb behind it would not."""
    modules = [
        importlib.import_module(f"alwa_d2.data.{m.name}") for m in iter_modules(data.__path__)
    ]
    kinds = {each for module in modules for each in vars(module).values() if isinstance(each, Kind)}
    assert len(kinds) > 30
    for kind in kinds:
        assert counted(1, kind.name) != f"1 {kind.name}"
        assert not re.search(r"\bthat (are|were|have|do|differ)\b", kind.name), kind.name


def test_a_workers_findings_are_added_behind_ones_own():
    findings, others = some(range(2)), some(range(7, 11))
    others.add(MISSING_IMAGE, "a.jpg", "", "there is no such file")
    findings.update(others)
    assert findings.counts == {ZERO_AREA: 6, MISSING_IMAGE: 1}
    assert [each.file for each in findings.first[ZERO_AREA]] == ["0.xml", "1.xml", "7.xml"]
    assert len(others.first[ZERO_AREA]) == KEPT  # not touched


def test_a_finding_names_file_object_and_remedy():
    findings = Findings()
    one = findings.add(ZERO_AREA, "a.xml", "object 2 (cat)", "xmin = xmax = 3")
    assert str(one) == (
        "a.xml, object 2 (cat): xmin = xmax = 3; left out; draw them again or delete them"
    )
    whole = findings.add(MISSING_IMAGE, "a.jpg", "", "there is no such file")
    assert str(whole).startswith("a.jpg: there is no such file; put the file there")


def test_the_page_has_errors_first_and_says_how_many_are_not_shown():
    findings = some(range(5))
    findings.add(MISSING_IMAGE, "a.jpg", "", "there is no such file")
    assert findings.page().splitlines() == [
        "ERROR: images missing: 1",
        "  remedy: put the file there, or take its entry out",
        "    a.jpg: there is no such file",
        "WARNING: boxes of zero area: 5",
        "  remedy: left out; draw them again or delete them",
        "    0.xml, object 1 (dog): 3, 4, 3, 9",
        "    1.xml, object 1 (dog): 3, 4, 3, 9",
        "    2.xml, object 1 (dog): 3, 4, 3, 9",
        "    ... and 2 more",
    ]


def test_what_a_reader_left_out_is_known_by_the_data_sets_name():
    assert left_out("never loaded").counts == {}
    note_left_out("findings_test_set", some(range(2)))
    assert left_out("findings_test_set").counts == {ZERO_AREA: 2}
