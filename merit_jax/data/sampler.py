"""Selects the examples that a branch visits, and their order."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from merit_jax.core.seeds import fold
from merit_jax.core.types import Branch, Dataset, DatasetSlice, Example, ImageReader
from merit_jax.data.token_cache import as_table


class BranchExamples(Sequence[Example]):
    """The examples of a branch's shares, one after the other.

    Attributes:
        lengths: Tokens of each example.
        supervised_counts: Supervised tokens of each example.
        datasets: Place in the mixture of each example's dataset.
    """

    def __init__(self, datasets: Sequence[Dataset], branch: Branch, seed: int):
        known = {dataset.name: dataset for dataset in datasets}
        if missing := sorted({share.dataset for share in branch.shares} - set(known)):
            raise ValueError(f"branch wants unknown datasets {missing}; the mixture has {sorted(known)}")
        self._names = [share.dataset for share in branch.shares]
        self._tables = [as_table(known[share.dataset].train) for share in branch.shares]
        rows = [share_examples(known[share.dataset], share, seed) for share in branch.shares]
        self._table_of = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        self._row_of = np.concatenate([np.zeros(0, np.int64), *rows])
        places = {dataset.name: place for place, dataset in enumerate(datasets)}
        self.datasets = np.array([places[name] for name in self._names], np.int32)[self._table_of]
        tables = list(zip(self._tables, rows, strict=True))
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(table.lengths[part] for table, part in tables)])
        self.supervised_counts = np.concatenate(
            [np.zeros(0, np.int64), *(table.supervised_counts[part] for table, part in tables)]
        )

    def __len__(self) -> int:
        return len(self._row_of)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices
        return self._tables[self._table_of[index]][int(self._row_of[index])]

    def image_counts(self, reader: ImageReader | None) -> Int64[np.ndarray, " n"]:
        """Counts the image tokens of each example; without a reader, none."""
        if reader is None:
            return np.zeros(len(self), np.int64)
        return np.array([reader.count(e.tokens[:-1]) if e.images else 0 for e in self], np.int64)

    def check(self, image_counts: Int64[np.ndarray, " n"], row_length: int, image_tokens: int) -> None:
        """Refuses an example that does not fit a row, or is too short to have anything to predict."""
        for index in np.flatnonzero((self.lengths < 2) | (self.lengths > row_length + 1))[:1].tolist():
            raise ValueError(
                f"{self._name(index)} has {self.lengths[index]} tokens, a row of {row_length} takes 2 to {row_length + 1}; "
                "lower the maximum length or raise the row length"
            )
        for index in np.flatnonzero(image_counts > image_tokens)[:1].tolist():
            raise ValueError(
                f"{self._name(index)} has {image_counts[index]} image tokens, a row takes {image_tokens}; raise "
                "train.image_tokens, or lower max_pixels in the model's preprocessor_config.json"
            )

    def _name(self, index: int) -> str:
        return f"dataset {self._names[self._table_of[index]]!r}: training example {self._row_of[index]}"


def share_examples(dataset: Dataset, share: DatasetSlice, seed: int) -> Int64[np.ndarray, " n"]:
    """Returns the example of each visit of one share: a slice of the shuffled visits that an epoch makes of the dataset.

    Raises:
        ValueError: It is no slice of the dataset.
    """
    visits = share_indices(dataset.visit_count, share, seed)
    return visits if dataset.visits is None else dataset.visits[visits]


def share_indices(examples: int, share: DatasetSlice, seed: int) -> Int64[np.ndarray, " n"]:
    """Returns the places of one share: a slice of the dataset's shuffle, which depends on `seed` and the name only.

    The parts of one dataset are therefore disjoint, and together all of it, in whichever branches they are.

    Raises:
        ValueError: It is no slice of the dataset.

    Examples:
        >>> parts = [share_indices(5, DatasetSlice("copy", part, 2), seed=0) for part in range(2)]
        >>> [len(part) for part in parts], sorted(np.concatenate(parts).tolist())
        ([2, 3], [0, 1, 2, 3, 4])
    """
    if not share.is_sound:
        raise ValueError(
            f"share of dataset {share.dataset!r}: {share.width} from part {share.part} of {share.parts}; expected "
            "0 <= part < part + width <= parts"
        )
    order = np.random.default_rng(fold(seed, "share", share.dataset)).permutation(examples)
    return order[slice(*share.within(examples))]


def epoch_orders(examples: int, epochs: int | float, seed: int) -> list[Int64[np.ndarray, " n"]]:
    """Returns the order of each epoch: a fresh shuffle of all examples; of a fractional epoch, its first part.

    Examples:
        >>> whole, half = epoch_orders(4, 1.5, seed=0)
        >>> sorted(whole.tolist()), len(half)
        ([0, 1, 2, 3], 2)
    """
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}; expected a number above 0")
    whole, fraction = int(epochs), epochs - int(epochs)
    counts = [examples] * whole + ([round(examples * fraction)] if fraction else [])
    return [
        np.random.default_rng(fold(seed, "order", str(epoch))).permutation(examples)[:count]
        for epoch, count in enumerate(counts)
    ]
