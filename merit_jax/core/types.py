"""The nouns of MERIT: every value that crosses a module boundary."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from merit_jax.core.dataset_slice import DatasetSlice
from merit_jax.core.skipped_row import SkippedRow

Array = jax.Array | np.ndarray

Params = Mapping[str, Any]
"""Nested dict of arrays. A leaf's path name joins its keys with "/"."""

Leaves = dict[str, Array]
"""Some leaves of a `Params`, flat: path name -> array, sorted by name."""


Image = Mapping[str, Any]
"""One image of a conversation: a content part {"type": "image", "path": ...} or {"type": "image", "bytes": ...}."""

Tools = tuple[Mapping[str, Any], ...]
"""JSON schemas of functions, as chat templates of `transformers` take them."""

Cache = Any
"""A model's key-value cache: a pytree whose leaves have the sequences on axis 1, behind the layers."""


class Batch(NamedTuple):
    """Rows of next-token prediction, possibly several examples to a row.

    `targets[b, t]` is the token that follows `tokens[b, t]` in the same example: the shift is done per example, before packing.

    Attributes:
        tokens: Input ids; 0 on padding.
        targets: Ids to predict; 0 on padding.
        weights: 1 where the target is supervised, else 0.
        positions: Position of the token in its own example, from 0.
        segments: 1, 2, ... per example in the row; 0 on padding. Attention stays inside a segment.
        images: Whatever the model's vision side takes; None for text.
        datasets: Place in the mixture of the dataset that each token's example is from, any on padding; None: not known.
    """

    tokens: Int32[Array, "*b t"]
    targets: Int32[Array, "*b t"]
    weights: Float[Array, "*b t"]
    positions: Int32[Array, "*b t"]
    segments: Int32[Array, "*b t"]
    images: Any = None
    datasets: Int32[Array, "*b t"] | None = None


LossFn = Callable[[Params, Batch], tuple[Float[Array, " b"], Float[Array, " b"]]]
"""(params, batch) -> (summed negative log-likelihood in nats, supervised tokens), both f32[B], per row."""


@runtime_checkable
class Model(Protocol):
    """A language model, as pure functions of its params."""

    def hidden(self, params: Params, batch: Batch) -> Float[Array, "b t d"]:
        """Computes the final, normalised hidden states."""

    def unembed(self, params: Params, hidden: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """Computes logits over the vocabulary, float32."""

    def init_cache(self, rows: int, length: int) -> Cache:
        """Makes an empty key-value cache for `rows` sequences of at most `length` tokens."""

    def prefill(self, params: Params, batch: Batch, cache: Cache) -> tuple[Float[Array, "b t d"], Cache]:
        """Reads right-padded prompts (one example per row) into an empty cache."""

    def decode(
        self, params: Params, tokens: Int32[Array, "b t"], slots: Int32[Array, "b t"], cache: Cache
    ) -> tuple[Float[Array, "b t d"], Cache]:
        """Appends `tokens` at cache slots `slots` (0-based place in the sequence; past the cache's end: ignored)."""


@runtime_checkable
class DifferentiableTwice(Protocol):
    """A model that may have to be computed in another way for second derivatives."""

    def twice(self) -> Model:
        """Returns the model for second and forward derivatives."""


InputGrams = Callable[[Params, Batch], tuple[Mapping[str, Float[Array, "*l d d"]], Mapping[str, Float[Array, "*l"]]]]
"""(params, batch) -> (`Xᵀ X` of the inputs X of each kernel, their number), by the kernel's path; inputs of padding left out."""


@runtime_checkable
class RecordsInputs(Protocol):
    """A model that can record the inputs of its kernels."""

    @property
    def input_grams(self) -> InputGrams:
        """Takes the Gram matrices of the inputs of every kernel."""


class Record(NamedTuple):
    """One row of a dataset file, as a conversation.

    Attributes:
        messages: OpenAI messages ({"role": ..., "content": ...}); the last one is the assistant's response. Content is text, or,
            with images, a list of parts: {"type": "text", "text": ...} and `Image`s. An assistant's message with "train": False
            is context, not supervised.
        options: Answer options of a multiple-choice row, else None.
        where: "FILE:LINE" (or "FILE[INDEX]"), for error messages.
        facts: What an open-ended answer should mention, else None.
        tools: JSON schemas of the functions that the chat template announces, else None.
    """

    messages: tuple[Mapping[str, Any], ...]
    options: tuple[str, ...] | None
    where: str
    facts: tuple[str, ...] | None = None
    tools: Tools | None = None


class Example(NamedTuple):
    """A tokenised conversation.

    Attributes:
        tokens: Ids of the whole conversation, prompt and responses.
        supervised: True on the tokens that the loss counts (the assistant's). Never the first token.
        images: The images of the conversation, in order; read only when a batch is made.
    """

    tokens: Int32[np.ndarray, " n"]
    supervised: Bool[np.ndarray, " n"]
    images: tuple[Image, ...] = ()


class PackedExample(NamedTuple):
    """An example in a row.

    Attributes:
        start: Place of its first token in the row.
        example: The example. Its last token is only a target, so it takes `len(tokens) - 1` places.
    """

    start: int
    example: Example


@runtime_checkable
class ImageReader(Protocol):
    """The host's side of a vision-language model: from references to images to `Batch.images`."""

    def count(self, tokens: Int32[np.ndarray, " n"]) -> int:
        """Counts the tokens that stand for images."""

    def row(self, placed: Sequence[PackedExample], row_length: int, image_tokens: int) -> Any:
        """Reads the images of one row of a batch.

        Args:
            placed: The examples of the row.
            row_length: Tokens of the row.
            image_tokens: Room for image tokens; the examples have no more.

        Returns:
            A tree of arrays without a batch axis, whose shapes depend on `row_length` and `image_tokens` alone. All zeros is a
            row of padding.

        Raises:
            ValueError: An image cannot be read; it is named.
        """

    def check(self, image: Image) -> None:
        """Reads one image whole.

        Raises:
            ValueError: It cannot be read.
        """


class Dataset(NamedTuple):
    """One dataset of the mixture.

    Attributes:
        name: Unique name; seeds are folded from it.
        train: Tokenised training examples, each once.
        held_out: Records that no gradient ever sees.
        report: Counts of rows and tokens, from reading it.
        weight: How often an epoch visits a training example, on average over the examples there are; `mixture.weights`.
        visits: The example of each visit of an epoch; None: each once.
    """

    name: str
    train: Sequence[Example]
    held_out: Sequence[Record]
    report: "ReadReport"
    weight: float = 1.0
    visits: Int64[np.ndarray, " visits"] | None = None

    @property
    def visit_count(self) -> int:
        """Visits of an epoch, s_t: training examples, each as often as it is trained on."""
        return len(self.train) if self.visits is None else len(self.visits)


class ReadReport(NamedTuple):
    """Counts from reading one dataset.

    Attributes:
        files: Paths read, training file first.
        digest: sha256 over the bytes of those files, the training rows' images and the manifest's options for reading them.
        rows: Training rows kept, each as often as an epoch visits it.
        truncated: Training examples truncated at the maximum length.
        tokens: Supervised training tokens after truncation, of all visits.
        total_tokens: Training tokens after truncation, prompts included, of all visits.
        held_out_images: sha256 over the images of the held-out rows; "" if there are none.
        unended: Training rows with a response that ends in no special token.
        unseen: Training rows with a text that the chat template leaves out.
        first_unseen: The first of those, with what is left out; empty without any, or where the token cache was read.
        skipped: The rows that cannot be used and are left out, training and held-out ones (`mixture.on_error`).
        origin: Where the files come from, as "owner/name@commit"; empty: they are where they were put.
    """

    files: tuple[str, ...]
    digest: str
    rows: int
    truncated: int
    tokens: int
    total_tokens: int
    held_out_images: str = ""
    unended: int = 0
    unseen: int = 0
    first_unseen: str = ""
    skipped: tuple[SkippedRow, ...] = ()
    origin: str = ""


class Branch(NamedTuple):
    """The data of one branch.

    Attributes:
        shares: Slices of datasets, each example visited once per epoch.
        seed: Seed of this branch's data order.
    """

    shares: tuple[DatasetSlice, ...]
    seed: int


class TrainState(NamedTuple):
    """All that training changes.

    Attributes:
        step: Optimizer steps taken.
        leaves: Trainable parameters, flat by path.
        optimizer: State of the optax optimizer.
    """

    step: Int32[Array, ""]
    leaves: Leaves
    optimizer: Any
