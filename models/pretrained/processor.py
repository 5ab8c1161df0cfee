"""The processor of a checkpoint: its tokenizer, and for vision-language models the reader of its images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from merit_jax.models.families.registry import FAMILIES, parse_config
from merit_jax.models.io.hf_folder import read_json
from merit_jax.models.processing.content_shape import roles_of_strings, shaped
from merit_jax.models.processing.image_loading import ImageReader
from merit_jax.models.processing.tokenizer import load_tokenizer

CONFIG = "config.json"


class Processor(NamedTuple):
    """The host's side of a model.

    Attributes:
        tokenizer: A Hugging Face tokenizer, or an `ImageTokenizer`; its `embedding_rows` are those of the model, if known.
        images: The reader of the model's images; None for a text model.
    """

    tokenizer: Any
    images: Any


def load_processor(path: str | Path, config: Any = None) -> Processor:
    """Loads the tokenizer of a checkpoint and the reader of its images, from local files only.

    Args:
        path: Hugging Face folder or .gguf file.
        config: Result of `read_config(path)`. None: read from the folder's config.json, for which no weights are needed;
            a folder without one, or with that of an unknown text model, is just a tokenizer.

    Raises:
        ValueError: There is no tokenizer, it lacks the image token, or the image settings cannot be read.
    """
    tokenizer = load_tokenizer(path)
    if config is None:
        config = _vision_config(Path(path))
    tokenizer.embedding_rows = _rows(Path(path), config)
    make_reader = None if config is None else FAMILIES[config.family].reader
    if make_reader is None:
        return Processor(tokenizer, None)
    reader = make_reader(path, config, tokenizer)
    _check_image_token(tokenizer, reader.token, config.image_token, str(path))
    return Processor(ImageTokenizer(tokenizer, reader), reader)


class ImageTokenizer:
    """A Hugging Face tokenizer whose chat template takes images.

    Attributes:
        tokenizer: The tokenizer, which does all else.
        reader: The reader of the model's images.
    """

    __slots__ = ("reader", "tokenizer")

    def __init__(self, tokenizer: Any, reader: ImageReader):
        self.tokenizer, self.reader = tokenizer, reader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in self.__slots__:  # while unpickling there is no tokenizer yet
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Tokenises text."""
        return self.tokenizer(*args, **options)

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def placeholder(self) -> str:
        """Text that the chat template writes per image; a text model's tokenizer has no such attribute."""
        return self.reader.placeholder

    @property
    def extra_rules(self) -> Any:
        """Settings of the image processor, which decide token counts too."""
        return self.reader.settings

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], tokenize: bool = False, **options: Any) -> str:
        """Renders a conversation; every image becomes as many placeholders as it has tokens.

        Args:
            messages: OpenAI messages, whose content is text or a list of parts.
            tokenize: False.
            **options: For the tokenizer's `apply_chat_template`.

        Raises:
            ValueError: The template cannot write images, or a text contains the placeholder.
        """
        if tokenize:
            raise ValueError("tokenize=True; render with tokenize=False, then call the tokenizer")
        template = options.get("chat_template") or self.tokenizer.get_chat_template(tools=options.get("tools"))
        messages = shaped(messages, roles_of_strings(self.tokenizer, template))
        contents = [message.get("content") for message in messages]
        parts = [part for content in contents for part in _parts(content)]
        images = [part for part in parts if part["type"] == "image"]
        for part in parts:
            for token in (self.placeholder, self.reader.token):
                if part["type"] == "text" and token in part["text"]:
                    raise ValueError(
                        f"the text {part['text']!r:.80} contains {token!r}, which stands for an image; take it out"
                    )
        shown = [
            {**message, "content": [{"type": "image"} if part["type"] == "image" else part for part in content]}
            if isinstance(content, list)
            else message
            for message, content in zip(messages, contents, strict=True)
        ]
        try:
            text = self.tokenizer.apply_chat_template(shown, tokenize=False, **options)
        except TypeError as error:
            raise ValueError(f"{error}; the template must take content that is a list of parts") from error
        return self._expand(text, images)

    def _expand(self, text: str, images: Sequence[Mapping[str, Any]]) -> str:
        pieces = text.split(self.placeholder)
        if len(pieces) - 1 != len(images):
            raise ValueError(
                f"the chat template writes {self.placeholder!r} {len(pieces) - 1} times for {len(images)} images; "
                "set a template that writes it once for every content part of type 'image'"
            )
        expansions = [self.reader.expansion(image, len(images)) for image in images]
        return "".join(a + b for a, b in zip(pieces, [*expansions, ""], strict=True))


def _parts(content: Any) -> list[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _vision_config(path: Path) -> Any:
    """Reads the config of a vision-language checkpoint; None for a text model or a mere tokenizer."""
    if not (path / CONFIG).is_file():
        return None
    raw = read_json(path / CONFIG)
    kind = raw.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if "vision_config" not in raw and (family is None or family.reader is None):
        return None
    return parse_config(raw, str(path / CONFIG))


def _rows(path: Path, config: Any) -> int | None:
    """Returns the rows of the model's embedding; None where neither a config nor the folder's config.json tells."""
    if config is not None:
        return getattr(config, "text", config).vocab_size
    found = read_json(path / CONFIG).get("vocab_size") if (path / CONFIG).is_file() else None
    return found if type(found) is int else None


def _check_image_token(tokenizer: Any, token: str | None, image_token: int, where: str) -> None:
    if not isinstance(token, str) or token not in tokenizer.get_added_vocab():
        raise ValueError(
            f"{where}: the tokenizer has no image token: id {image_token}, which config.json names, is {token!r} and "
            "no special token; take the tokenizer of the vision-language model, or add the token"
        )
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    if ids != [image_token]:
        raise ValueError(
            f"{where}: the tokenizer reads the image token {token!r} as ids {ids}, config.json says {image_token}; "
            "add it to the tokenizer as a special token of that id"
        )
