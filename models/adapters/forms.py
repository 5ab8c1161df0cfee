"""The forms of low-rank updates: what is trained beside a kernel, and how its product is scaled."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

A, B, MAGNITUDE = "_lora_a", "_lora_b", "_dora_magnitude"
"""Endings of the leaves beside a kernel: A [*layers, in, rank], B [*layers, rank, out], magnitude [*layers, out]. The first two
are qwix's."""


class Form(NamedTuple):
    """A form of low-rank update.

    Attributes:
        scaling: (alpha, rank) -> the factor s of `W + s A B`.
        magnitude: Whether the columns of `W + s A B` are scaled to trained lengths (DoRA).
        four_bits: Whether the frozen kernels are held in NF4.
    """

    scaling: Callable[[float, int], float]
    magnitude: bool = False
    four_bits: bool = False


def _lora(alpha: float, rank: int) -> float:
    return alpha / rank


def _rslora(alpha: float, rank: int) -> float:
    return alpha / math.sqrt(rank)


FORMS: Mapping[str, Form] = {
    "lora": Form(_lora),
    "rslora": Form(_rslora),
    "dora": Form(_lora, magnitude=True),
    "qlora": Form(_lora, four_bits=True),
    "qrslora": Form(_rslora, four_bits=True),
    "qdora": Form(_lora, magnitude=True, four_bits=True),
}
"""Value of `train.adapter` -> the form: LoRA (arXiv:2106.09685), rsLoRA (2312.03732), DoRA (2402.09353), and each with its frozen
kernels in NF4 (QLoRA, 2305.14314)."""


class Options(NamedTuple):
    """The options of a model's low-rank updates.

    Attributes:
        form: A key of `FORMS`.
        rank: r, the inner width of A B.
        alpha: Numerator of the scaling.
        targets: Regular expressions, searched for in the paths of kernels.
        among: Regular expressions, likewise: kernels that match none of them are left out.
    """

    form: str
    rank: int
    alpha: float
    targets: tuple[str, ...]
    among: tuple[str, ...] = (".*",)

    @property
    def scale(self) -> float:
        """The factor s of `W + s A B`."""
        return FORMS[self.form].scaling(self.alpha, self.rank)
