"""Topologies as they are written, and what is refused."""

import pytest

from merit_jax.planning.topology import CHIPS, parse_topology


@pytest.mark.parametrize(("text", "count"), [("v5e:8x8", 64), ("v5p:4x4x4", 64), ("h100:8", 8), ("cpu:8", 8)])
def test_a_topology_counts_its_chips_and_prints_as_it_is_written(text, count):
    topology = parse_topology(text)
    assert (str(topology), topology.chips, topology.chip) == (text, count, CHIPS[text.split(":")[0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e", "expected CHIP:SHAPE"),
        ("v5e:0x8", "expected CHIP:SHAPE"),
        ("v9:8x8", "unknown chip 'v9'; known: a100, cpu, h100, h200, v4, v5e"),
        ("v5e:4x4x4", r"v5e takes 2 number\(s\), such as v5e:4x4"),
        ("h100:2x4", r"h100 takes 1 number\(s\), such as h100:8"),
    ],
)
def test_an_unknown_topology_is_refused_with_an_example(text, message):
    with pytest.raises(ValueError, match=message):
        parse_topology(text)
