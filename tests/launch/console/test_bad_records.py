"""Bad records are grouped by dataset and kind."""

import pytest

from merit_jax.data.rows import RowError
from merit_jax.launch.console.bad_records import BadRecord, bad_record_lines, kind_of

KINDS = [
    (
        "a.jsonl:1: missing field 'output' (found: ['a']); add it",
        "b.jsonl:9: missing field 'output' (found: ['b', 'c'])",
        True,
    ),
    ("f:1: missing field 'output'", "f:1: missing field 'input'", False),
    ("f:1: /x/a.png: no such image; correct", "f:2: /y/b.png: no such image; correct", True),
    ("f:1: 2 images for 1 <image> markers", "f:7: 3 images for 12 <image> markers", True),
    ("f:1: must be a string, got int: 7", "f:1: must be a string, got list: [1, 'x; y']", False),
    ("f:1: target 'a kite' is missing", "f:1: target 'it\\'s red' is missing", True),
]


@pytest.mark.parametrize(("one", "other", "same"), KINDS)
def test_a_kind_is_the_reason_without_what_is_the_records_own(one, other, same):
    first, second = (RowError(*text.split(": ", 1)) for text in (one, other))
    assert (kind_of(first) == kind_of(second)) == same


def test_kinds_are_dealt_to_the_datasets_in_turn():
    bad = [BadRecord("a", RowError(f"a:{n}", f"problem {word}")) for n, word in enumerate("xyzz")]
    bad += [BadRecord(name, ValueError(f"{name}: broken")) for name in ("b", "", "c")]
    assert bad_record_lines(bad, 4) == [
        "a: 4 bad",
        "  a:2: problem z",
        "    1 more of this kind: a:3",
        "  2 of 2 other kinds",
        "b: 1 bad",
        "  b: broken",
        "rows of no dataset: 1 bad",
        "  : broken",
        "c: 1 bad",
        "  c: broken",
    ]
    assert bad_record_lines(bad, 0) == ["7 bad in 4 more datasets, which --max_bad=0 leaves out"]
    assert bad_record_lines([], 4) == []
