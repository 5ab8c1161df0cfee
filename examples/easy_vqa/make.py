"""Writes the questions and pictures of the package easy-vqa as a mixture of 16 datasets in LLaVA's form.

pip install --no-deps easy-vqa
python -m merit_jax.examples.easy_vqa.make --out=runs/easy_vqa
"""

import argparse
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from merit_jax.examples.easy_vqa.kinds import WORDINGS, kind_of, spaced

SPLITS = ("train", "test")
"""Folders of the package; test questions are about other pictures."""


class Item(NamedTuple):
    """A question about a picture.

    Attributes:
        name: "train-17" is the eighteenth question of the training file.
        question: In lower case, punctuation apart.
        answer: One word.
        image: Path of the picture below the folder of images.
    """

    name: str
    question: str
    answer: str
    image: str


def package_data() -> Path:
    """Finds the data folder of the installed package, which is not imported.

    Raises:
        ImportError: The package is not installed.
    """
    found = importlib.util.find_spec("easy_vqa")
    if found is None or not found.submodule_search_locations:
        raise ImportError("easy-vqa is not installed: pip install --no-deps easy-vqa")
    return Path(found.submodule_search_locations[0]) / "data"


def read_items(data: Path, split: str) -> dict[str, list[Item]]:
    """Reads the questions of a split by kind.

    Raises:
        ValueError: The file is no list of questions, a question is of no known kind, or its picture is missing.
    """
    file = data / split / "questions.json"
    found: dict[str, list[Item]] = {kind: [] for kind in WORDINGS}
    try:
        rows = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: not readable ({error}); reinstall easy-vqa") from error
    for number, row in enumerate(rows):
        where = f"{file}: question {number}"
        item = _item(row, split, number, where)
        kind = kind_of(item.question)
        if kind is None:
            raise ValueError(f"{where}: {item.question!r} is of no known kind; add its wording to kinds.py")
        if not (image := _source(data, item)).is_file():
            raise ValueError(f"{where}: no picture {image}; reinstall easy-vqa")
        found[kind].append(item)
    return found


def _item(row: Sequence, split: str, number: int, where: str) -> Item:
    try:
        question, answer, image = row
        return Item(f"{split}-{number}", spaced(question), spaced(answer), f"{split}/{int(image)}.png")
    except (TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{where}: {row!r:.80} is not [question, answer, number of the image]; reinstall easy-vqa"
        ) from None


def _source(data: Path, item: Item) -> Path:
    split, name = item.image.split("/")
    return data / split / "images" / name


def record(item: Item) -> dict:
    """Returns an item in LLaVA's form."""
    said = [{"from": "human", "value": "<image>\n" + item.question}, {"from": "gpt", "value": item.answer}]
    return {"id": item.name, "image": item.image, "conversations": said}


def write_mixture(data: Path, out: Path) -> None:
    """Writes out/train/KIND.jsonl, out/test/KIND.jsonl, the pictures below out/images and, last, out/mixture.json."""
    kinds = {split: read_items(data, split) for split in SPLITS}
    for split, datasets in kinds.items():
        copy_images(data, out / "images", datasets)
        (out / split).mkdir(parents=True, exist_ok=True)
        for kind, items in datasets.items():
            text = "".join(json.dumps(record(item)) + "\n" for item in items)
            (out / split / f"{kind}.jsonl").write_text(text)
    (out / "mixture.json").write_text(json.dumps(manifest(kinds["train"], kinds["test"]), indent=2) + "\n")


def copy_images(data: Path, images: Path, datasets: Mapping[str, Sequence[Item]]) -> None:
    """Copies the pictures of a split; a link would leave the folder of images, and is refused there."""
    for name, item in {item.image: item for items in datasets.values() for item in items}.items():
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_source(data, item), images / name)


def manifest(train: Mapping[str, Sequence[Item]], test: Mapping[str, Sequence[Item]]) -> dict[str, dict[str, str]]:
    """Returns the datasets that have training rows, with their held-out rows if there are any."""
    entries = {}
    for kind in filter(train.get, WORDINGS):
        entries[kind] = {"file_name": f"train/{kind}.jsonl", "formatting": "llava", "image_root": "images"}
        if test[kind]:
            entries[kind]["eval_file_name"] = f"test/{kind}.jsonl"
    return entries


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the flag and writes the mixture."""
    parser = argparse.ArgumentParser(
        prog="python -m merit_jax.examples.easy_vqa.make", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    flags = parser.parse_args(arguments)
    try:
        write_mixture(package_data(), flags.out)
    except (ImportError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
