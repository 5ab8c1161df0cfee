"""Interface of the emitters: what a branch trains on and how, in no tool's words, and what a tool's emitter says of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from merit_jax.core.types import Record
from merit_jax.data.message_texts import images_of


class DataFile(NamedTuple):
    """The training rows of one dataset, or slice of one, in a branch.

    Attributes:
        dataset: Name of the dataset.
        stem: A name of letters, digits, `_`, `.` and `-` alone, unique in the branch, for files and lists.
        records: The rows, in the order of the dataset's files.
    """

    dataset: str
    stem: str
    records: Sequence[Record]

    @property
    def path(self) -> str:
        """The file, from the branch's folder."""
        return f"data/{self.stem}.jsonl"

    @property
    def has_images(self) -> bool:
        """True if a row has an image."""
        return any(images_of(record.messages) for record in self.records)


class BranchData(NamedTuple):
    """The data of one branch.

    Attributes:
        files: One for each of its datasets.
        has_images: Whether any row has an image.
        one_response: Whether the last turn of every row is its only one that is trained.
    """

    files: tuple[DataFile, ...]
    has_images: bool
    one_response: bool

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(len(file.records) for file in self.files)


class Settings(NamedTuple):
    """The training of one branch, as far as every tool must be able to say it.

    Attributes:
        branch: Its number.
        model: Folder of theta0.
        family: Its `model_type`.
        parts: The parts of a vision-language model (vision, projector, decoder); none of a text model.
        frozen: Those of the parts that are not trained.
        learning_rate: Peak learning rate.
        schedule: "cosine", "linear" or "constant".
        warmup_steps: Steps in which the learning rate rises.
        steps: Optimizer steps, as planned here.
        epochs: Passes over the branch's rows.
        batch: Rows of a step if rows are packed.
        batch_examples: Examples of a step if they are not: so many that there are as many steps.
        micro_batches: Parts of a batch that are computed one after the other.
        row_length: Tokens of a packed row.
        max_length: Tokens of an example.
        optimizer: "adamw", "lion" or "sgd".
        b1: First-moment decay.
        b2: Second-moment decay.
        eps: Epsilon.
        weight_decay: Decoupled weight decay, of all but norms and biases.
        clip_norm: Largest gradient norm; 0: no clipping.
        seed: Seed of the branch's data order.
        bf16: Whether it computes in bfloat16; parameters are float32.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
        end_of_turn: The special token that ends a response; "" if none does.
        eos: The tokenizer's end of text.
    """

    branch: int
    model: str
    family: str
    parts: tuple[str, ...]
    frozen: tuple[str, ...]
    learning_rate: float
    schedule: str
    warmup_steps: int
    steps: int
    epochs: float
    batch: int
    batch_examples: int
    micro_batches: int
    row_length: int
    max_length: int
    optimizer: str
    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip_norm: float
    seed: int
    bf16: bool
    checkpoint_every: int
    log_every: int
    end_of_turn: str
    eos: str


def as_given(data: BranchData) -> BranchData:
    """Returns the data as they are: a file for each dataset."""
    return data


def output_folder(branch: int) -> str:
    """Returns the folder, in that of a branch, into which the tool writes the trained model; merged models' cards name it."""
    return f"model-{branch}"


class Emitter(NamedTuple):
    """A tool for which branches are written.

    Attributes:
        name: Its name as its users write it.
        checked: The version whose own config classes the files were checked with.
        command: Command that trains a branch, in the branch's folder.
        packs: Returns whether rows are packed, as they are here.
        problems: Yields what the tool cannot say of a branch, each a sentence that names a key or a dataset.
        arranged: Returns the data of a branch in files as the tool takes them.
        row: Returns a row of a data file.
        files: Returns the tool's own files: name -> text.
        notes: Yields in sentences what the tool does differently, for the README.
    """

    name: str
    checked: str
    command: str
    packs: Callable[[Settings, BranchData], bool]
    problems: Callable[[Settings, BranchData], Iterator[str]]
    arranged: Callable[[BranchData], BranchData]
    row: Callable[[DataFile, Record, BranchData], dict[str, Any]]
    files: Callable[[Settings, BranchData], dict[str, str]]
    notes: Callable[[Settings, BranchData], Iterator[str]]
