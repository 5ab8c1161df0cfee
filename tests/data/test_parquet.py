"""Parquet files that claim more than they hold."""

import io

import pytest

from merit_jax.data import parquet as module
from merit_jax.data.readers import read_rows

pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def varint(number):
    out = b""
    while True:
        out, number = out + bytes([number & 127 | (128 if number > 127 else 0)]), number >> 7
        if not number:
            return out


def with_list_of(count):
    """A file of some hundred bytes whose footer says that its schema has so many elements."""
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"inputs": ["a"], "targets": ["b"]}), out)
    data = out.getvalue()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    place = footer.index(b"\x19") + 1  # the header of the list of schema elements: size and type
    lie = footer[:place] + bytes([0xFC]) + varint(count) + footer[place + 1 :]
    return data[: -8 - size] + lie + len(lie).to_bytes(4, "little") + b"PAR1"


def read(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    return list(read_rows(str(tmp_path / "a.parquet")))


def test_a_list_longer_than_the_file_is_refused_before_it_is_allocated(tmp_path):
    content = with_list_of(1_000_000)
    assert len(content) < 1000
    with pytest.raises(ValueError, match=r"a\.parquet: not readable as parquet after 0 rows .*size limit"):
        read(tmp_path, content)


def table(tmp_path, columns, **options):
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out, **options)
    return out.getvalue()


def test_more_values_than_a_file_can_hold_are_refused(tmp_path):
    rows = table(tmp_path, {"inputs": pyarrow.array(["a"]).take(pyarrow.array([0] * 1_200_000))})
    assert len(rows) < 20_000
    with pytest.raises(ValueError, match=r"a\.parquet: not readable.* \(1200000 values in a file of \d+ bytes\)"):
        read(tmp_path, rows)
    items = pyarrow.array([[0] * 1_200_000])
    with pytest.raises(ValueError, match="1200000 values in a file"):
        read(tmp_path, table(tmp_path, {"inputs": items}))


def test_a_column_packed_beyond_measure_is_refused(tmp_path):
    content = table(
        tmp_path, {"inputs": ["a" * 2**27]}, compression="zstd", use_dictionary=False, write_statistics=False
    )
    with pytest.raises(ValueError, match=r"column 'inputs' claims 1342\d+ bytes, packed in \d+"):
        read(tmp_path, content)


def test_repeated_text_and_well_packed_text_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_VALUES", 10_000)
    rows = [{"inputs": "the same instruction " * 50, "targets": str(number)} for number in range(10_000)]
    content = table(tmp_path, {key: [row[key] for row in rows] for key in rows[0]}, compression="zstd")
    assert [row for _, row in read(tmp_path, content)] == rows
