"""Opens parquet files whose footers claim no more than the file can hold: memory is bounded before anything is allocated."""

from typing import Any, BinaryIO

MAX_TEXT, MAX_ITEMS = 100_000_000, 1_000_000
"""Most bytes of a text and most items of a list in a footer, those of pyarrow; a file has no more than it has bytes."""
MIN_VALUES, PER_BYTE = 1_000_000, 8
"""Values of a column that are read from a file of any size, and more per byte of it: data that are not one value repeated."""
MIN_BYTES, MAX_RATIO = 2**26, 1000
"""Bytes of a column in a row group that are unpacked from any number, and how many times as many from more."""


def open_parquet(file: BinaryIO, size: int) -> Any:
    """Returns a `pyarrow.parquet.ParquetFile`.

    Args:
        file: The open file.
        size: Its bytes.

    Raises:
        ValueError: It claims more values or bytes than a file of this size holds.
        Exception: pyarrow fails on damaged files in many ways.
    """
    import pyarrow.parquet

    limits = {"thrift_string_size_limit": MAX_TEXT, "thrift_container_size_limit": MAX_ITEMS}
    opened = pyarrow.parquet.ParquetFile(file, **{name: max(1, min(most, size)) for name, most in limits.items()})
    footer, values = opened.metadata, [0] * opened.metadata.num_columns
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            values[place] += column.num_values
            unpacked, packed = column.total_uncompressed_size, min(column.total_compressed_size, size)
            if unpacked > max(MIN_BYTES, MAX_RATIO * packed):
                raise ValueError(f"column {column.path_in_schema!r:.80} claims {unpacked} bytes, packed in {packed}")
    most = max([footer.num_rows, *values])
    if most > max(MIN_VALUES, PER_BYTE * size):
        raise ValueError(f"{most} values in a file of {size} bytes")
    return opened
