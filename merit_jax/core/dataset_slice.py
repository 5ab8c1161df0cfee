"""A slice of a dataset: equal parts of its shuffled examples."""

from typing import Any, NamedTuple


class DatasetSlice(NamedTuple):
    """`width` of the `parts` equal parts of a dataset's shuffled examples, from the `part`-th on (0 of 1: all of them).

    Examples:
        >>> [DatasetSlice("copy", *numbers).described for numbers in ((), (1, 4), (1, 4, 2))]
        ['copy', 'copy (2 of 4)', 'copy (2-3 of 4)']
        >>> DatasetSlice("copy", 1, 4).to_list(), DatasetSlice("copy", 1, 4, 2).to_list()
        (['copy', 1, 4], ['copy', 1, 4, 2])
    """

    dataset: str
    part: int = 0
    parts: int = 1
    width: int = 1

    @property
    def is_sound(self) -> bool:
        """True of a slice of a dataset that is not empty."""
        return 0 <= self.part < self.part + self.width <= self.parts

    @property
    def share(self) -> float:
        """The share of the dataset's examples that it is."""
        return self.width / self.parts

    @property
    def described(self) -> str:
        """The dataset's name, with the parts where it is not the whole."""
        last = self.part + self.width
        which = f"{self.part + 1}" if self.width == 1 else f"{self.part + 1}-{last}"
        return self.dataset if self.width == self.parts else f"{self.dataset} ({which} of {self.parts})"

    def within(self, count: int) -> tuple[int, int]:
        """Returns the first of a dataset's `count` examples (or tokens) that are in it, and the first behind it."""
        return count * self.part // self.parts, count * (self.part + self.width) // self.parts

    def to_list(self) -> list[Any]:
        """Returns JSON values: [dataset, part, parts], and the width where it is not one."""
        return list(self if self.width != 1 else self[:3])
