"""Lets lm-evaluation-harness evaluate our models: its prompts and metrics, our forward passes.

The results are those of the harness's own `hf` model: the same token ids, truncated from the left where a model's context is too
short, the same stop sequences. Needs the extra `eval`.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jinja2
import numpy as np
from jaxtyping import Int32
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from merit_jax.core.progress import bar
from merit_jax.core.sharding import to_host
from merit_jax.core.types import Example, Model, Params
from merit_jax.evaluation.batch_shapes import BatchShapes
from merit_jax.evaluation.decoding import Inference
from merit_jax.evaluation.not_finite import NotFiniteError, names
from merit_jax.evaluation.prompts import open_example
from merit_jax.evaluation.scoring import completions, continuation_scores, option_scores

SHARED = 64
"""Most tokens of a continuation that is scored on a copy of its context's cache; a longer one is read with its context."""

BLOCK = 64
"""Batches of prompts that are generated from before the bar moves on."""

GREEDY_KEYS = {"do_sample", "temperature", "top_k", "top_p", "min_p"}
"""Generation settings without effect where the likeliest token is taken."""

Answer = tuple[float, bool]
"""(log-likelihood in nats, whether greedy decoding would have written exactly this continuation)."""


class GenerationRequest(NamedTuple):
    """The settings of a response.

    Attributes:
        until: Texts that end the response.
        stop: Token ids that end the response.
        max_new_tokens: Its longest length.
    """

    until: tuple[str, ...]
    stop: tuple[int, ...]
    max_new_tokens: int


class ScoringRequest(NamedTuple):
    """A continuation to be scored.

    Attributes:
        context: Ids before it, at least one.
        continuation: Its ids.
    """

    context: tuple[int, ...]
    continuation: Int32[np.ndarray, " n"]


class HarnessModel(TemplateLM):
    """A model with its params as the harness's `LM`; several processes make the same requests in the same order.

    Args:
        model: Pure functions of its params.
        params: On the devices.
        tokenizer: A Hugging Face tokenizer.
        layout: Shapes of batches; the largest bucket holds `max_length` tokens.
        max_length: Tokens of the model's context.
        stop: Ids that end a response, in addition to the tokenizer's end-of-text token.

    Raises:
        ValueError: The tokenizer has no end-of-text token.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        tokenizer: Any,
        layout: BatchShapes,
        *,
        max_length: int,
        stop: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-text token; set eos_token in its tokenizer_config.json")
        self.tokenizer, self.max_length, self.max_gen_toks = tokenizer, max_length, 256
        self._model, self._params, self._layout = model, params, layout
        self._stop = tuple(sorted({tokenizer.eos_token_id, *stop}))
        self._read = jax.jit(continuation_scores(model))
        self._writers: dict[tuple[tuple[int, ...], int], Inference] = {}
        self._scorer = Inference(model, max_new_tokens=1, longest_option=SHARED, stop=self._stop)

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-text token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Id that precedes a text without context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, for the harness's caches."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Returns the ids of a text; None adds special tokens unless the text already begins with the first of them."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Renders a conversation as a prompt; without its system messages where the template refuses them."""
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            return self.tokenizer.apply_chat_template(chat_history, tokenize=False, **options)
        except jinja2.TemplateError:
            rest = [message for message in chat_history if message["role"] != "system"]
            return self.tokenizer.apply_chat_template(rest, tokenize=False, **options)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Computes the log-likelihood of whole texts, each token predicted once, with the longest context that fits.

        A window is read with the context that precedes it.
        """
        windows = [list(self._windows(request.args[0])) for request in requests]
        found = iter(self._loglikelihood_tokens([window for parts in windows for window in parts]))
        return [sum(next(found)[0] for _ in parts) for parts in windows]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generates greedy responses, ended before the first of their stop sequences.

        Raises:
            ValueError: A request wants sampling or beams, or leaves its prompt no room.
        """
        groups: dict[GenerationRequest, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[self._generation_request(request.args[1])].append(index)
        texts = [""] * len(requests)
        with bar(len(requests), "lm-eval: responses", "response") as shown:
            for settings, members in groups.items():
                prompts = [self._prompt(requests[index].args[0], settings) for index in members]
                for index, text in zip(members, self._write(prompts, settings), strict=True):
                    texts[index] = text
                    shown.update()
        return texts

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any) -> list[Answer]:
        """Computes the likelihood of continuations; short ones of one context are scored together.

        Raises:
            ValueError: A context or continuation has no tokens, or a continuation more than the model's context; or a likelihood
                is NaN or infinite.
        """
        rows = [self._truncated(*request) for request in requests]
        contexts: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            contexts[row.context].append(index)
        groups = [members for members in contexts.values() if _share_context([rows[index] for index in members])]
        alone = sorted(set(range(len(rows))) - {index for members in groups for index in members})
        answers: list[Answer] = [(0.0, False)] * len(rows)
        with bar(len(rows), "lm-eval: log-likelihoods", "continuation") as shown:
            for index, answer in itertools.chain(self._read_together(rows, groups), self._read_alone(rows, alone)):
                answers[index] = answer
                shown.update()
        return answers

    def _read_together(
        self, rows: Sequence[ScoringRequest], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, Answer]]:
        """Reads each group's context once."""
        prompts = [_open(rows[members[0]].context) for members in groups]
        options = [[rows[index].continuation for index in members] for members in groups]
        with names(lambda group: self._end_of(rows[groups[group][0]].context)):
            for group, scored in option_scores(self._scorer, self._params, prompts, options, self._layout):
                for index, log_likelihood, greedy in zip(groups[group], *scored, strict=True):
                    yield index, (float(log_likelihood), bool(greedy))

    def _read_alone(self, rows: Sequence[ScoringRequest], members: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """Reads each continuation with its context in one pass."""
        for places, batch in self._layout.batches([_whole(rows[index]) for index in members]):
            for place, nll, misses in zip(places, *to_host(self._read(self._params, batch)), strict=True):
                if place >= 0 and not np.isfinite(nll):
                    text = self._end_of(rows[members[place]].context)
                    raise NotFiniteError(members[place], f"{text}: the score of its continuation")
                if place >= 0:
                    yield members[place], (-float(nll), not misses)

    def _end_of_prompt(self, prompts: Sequence[Example], index: int) -> str:
        return self._end_of(prompts[index].tokens[:-1].tolist())

    def _end_of(self, context: Sequence[int]) -> str:
        """Names a text in an error by its last words."""
        return f"the text that ends in {self.tokenizer.decode(list(context[-20:]))!r}"

    def _truncated(self, texts: Any, context: list[int], continuation: list[int]) -> ScoringRequest:
        """Truncates a request from the left to the model's context; its last token is only predicted."""
        if not context or not 0 < len(continuation) <= self.max_length:
            raise ValueError(
                f"{len(context)} tokens of context and {len(continuation)} of continuation: {texts!r:.200}; expected at least "
                f"one of each, and at most {self.max_length} of continuation (the model's context)"
            )
        kept = (context + continuation)[-(self.max_length + 1) :]
        return ScoringRequest(tuple(kept[: -len(continuation)]), np.asarray(continuation, np.int32))

    def _windows(self, text: str) -> Iterator[tuple[None, list[int], list[int]]]:
        """Yields (None for a request's texts, context, continuation) of each window of a text."""
        ids = self.tok_encode(text)
        for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1):
            yield (None, *make_disjoint_window(window))

    def _generation_request(self, settings: dict[str, Any]) -> GenerationRequest:
        """Reads a task's generation settings."""
        rest = dict(normalize_gen_kwargs(settings, self.max_gen_toks))
        until = handle_stop_sequences(rest.pop("until"), eos=self.tokenizer.decode(self.eot_token_id))
        room = rest.pop("max_gen_toks")
        if rest["do_sample"] or not rest.keys() <= GREEDY_KEYS:
            raise ValueError(
                f"generation_kwargs {settings}: only greedy decoding is supported; set do_sample: false, no beams"
            )
        if not 0 < room < self.max_length:
            raise ValueError(
                f"max_gen_toks = {room}: expected from 1 to {self.max_length - 1}, below the model's context"
            )
        special = dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))
        stop = {special[text] for text in until if text in special} | set(self._stop)
        return GenerationRequest(tuple(until), tuple(sorted(stop)), room)

    def _prompt(self, context: str, request: GenerationRequest) -> Example:
        """A prompt, truncated from the left to leave room for the response."""
        first = self.tokenizer.bos_token
        ids = self.tok_encode(context, add_special_tokens=not (first and context.startswith(first)))
        return _open((ids or [self.prefix_token_id])[request.max_new_tokens - self.max_length :])

    def _write(self, prompts: Sequence[Example], request: GenerationRequest) -> Iterator[str]:
        """The response to every prompt, in order."""
        shape = (request.stop, request.max_new_tokens)
        if shape not in self._writers:
            self._writers[shape] = Inference(self._model, max_new_tokens=request.max_new_tokens, stop=request.stop)

        def text(ids: np.ndarray) -> tuple[str, bool]:
            """Decodes a response up to its stop sequence; True if it has one."""
            whole = self.tokenizer.decode(ids, skip_special_tokens=True)
            kept = postprocess_generated_text(whole, list(request.until), think_end_token=None)
            return kept, len(kept) < len(whole)

        def ended(responses: list[np.ndarray]) -> np.ndarray:
            return np.array([text(ids)[1] for ids in responses])

        block = BLOCK * self._layout.batch_size
        for start in range(0, len(prompts), block):
            part = prompts[start : start + block]
            with names(partial(self._end_of_prompt, part)):
                written = completions(self._writers[shape], self._params, part, self._layout, ended)
            for ids in written:
                yield text(ids)[0]


def _share_context(rows: Sequence[ScoringRequest]) -> bool:
    """Returns whether rows of one context are scored on one pass over it."""
    return len(rows) > 1 and all(len(row.continuation) <= SHARED for row in rows)


def _open(context: Sequence[int]) -> Example:
    return open_example(np.asarray(context, np.int32))


def _whole(row: ScoringRequest) -> Example:
    """A context and its continuation, of which the continuation is supervised."""
    tokens = np.concatenate([np.array(row.context, np.int32), row.continuation])
    return Example(tokens, np.arange(len(tokens)) >= len(row.context))
