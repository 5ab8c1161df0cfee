"""Says which files of a base its descendants are written without, though a user may count on them."""

from pathlib import Path


def left_behind(source: Path) -> list[str]:
    """Returns a sentence for each kind of file in a folder that is not copied and that a user may miss.

    Code is not copied, as mergekit does not: a folder that is passed on must not bring programs with it unread.
    """
    code = sorted(file.name for file in source.glob("*.py"))
    adapters = sorted(file.name for file in source.glob("adapter_*"))
    sentences = []
    if code:
        sentences.append(
            f"{source}: its code is not copied ({', '.join(code)}); copy it yourself if the model needs it and you trust it"
        )
    if adapters:
        sentences.append(
            f"{source}: the adapter in it is neither merged nor copied ({', '.join(adapters)}); to merge it, write it into "
            "the weights first (peft: merge_and_unload)"
        )
    return sentences
