"""The settings of rotary positions (RoPE), and of its stretching to contexts longer than those of pre-training."""

from typing import NamedTuple


class LinearScaling(NamedTuple):
    """Division of all RoPE frequencies.

    Attributes:
        factor: Divisor.
    """

    factor: float


class Llama3Scaling(NamedTuple):
    """Stretching of the low RoPE frequencies, as in Llama 3.1 and later.

    Attributes:
        factor: Divisor of the frequencies of long wavelengths.
        low_freq_factor: Wavelengths above `original_length / low_freq_factor` tokens are divided by `factor`.
        high_freq_factor: Wavelengths below `original_length / high_freq_factor` tokens stay; between, they blend.
        original_length: Context length of pre-training, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


class YarnScaling(NamedTuple):
    """Stretching of the low RoPE frequencies, with a blend over pairs (YaRN, arXiv:2309.00071).

    Attributes:
        factor: Divisor of the frequencies that turn fewer than `beta_slow` times in the original context.
        original_length: Context length of pre-training, in tokens.
        attention_factor: Factor of cosines and sines.
        beta_fast: Turns in the original context above which frequencies stay.
        beta_slow: Turns below which they are divided by `factor`; between, they blend.
        truncate: Whether the blend begins and ends at whole pairs.
    """

    factor: float
    original_length: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


class LongRopeScaling(NamedTuple):
    """A divisor for each RoPE frequency (LongRoPE, arXiv:2402.13753).

    Attributes:
        short: Divisors in rows whose positions stay below `original_length`.
        long: Divisors in longer rows.
        original_length: Context length of pre-training, in tokens.
        attention_factor: Factor of cosines and sines.
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_length: int
    attention_factor: float


Scaling = LinearScaling | Llama3Scaling | YarnScaling | LongRopeScaling


class Rope(NamedTuple):
    """Rotary positions.

    Attributes:
        theta: Base of the wavelengths.
        scaling: Stretching of the frequencies; None for none.
        rotated: Channels of a head that are rotated, the first ones; None: all.
    """

    theta: float = 10000.0
    scaling: Scaling | None = None
    rotated: int | None = None

    def width(self, head_dim: int) -> int:
        """Returns the number of rotated channels of a head.

        Examples:
            >>> Rope(rotated=4).width(8), Rope().width(8)
            (4, 8)
        """
        return head_dim if self.rotated is None else self.rotated
