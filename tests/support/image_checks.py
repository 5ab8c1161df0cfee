"""What every family with images must do, given a tiny model: rows in one, and prompts in a cache, change nothing."""

import numpy as np

import tests.support.tiny as tiny
from merit_jax.models import load_pretrained
from merit_jax.models.pretrained.processor import load_processor
from tests.support.tiny_tiles import batch, conversation, packed, picture


def opened(path, sizes):
    """(folder, model, params, processor, references to images of these sizes) of a folder."""
    model, params = load_pretrained(path)
    pictures = [picture(path / f"{n}.png", *size, seed=n) for n, size in enumerate(sizes)]
    return path, tiny.compiled(model), params, load_processor(path, model.config), pictures


def packed_conversations_score_as_they_do_alone(world, width, room, atol):
    _, model, params, processor, pictures = world
    talks = [conversation(pictures[1]), conversation(), conversation(*pictures[:2])]
    alone, row = batch(processor, talks, width, room), packed(processor, talks, 2 * width, 2 * room)
    found, expected = tiny.logits(model, params, row)[0], tiny.logits(model, params, alone)
    expected = np.concatenate([expected[i, alone.segments[i] > 0] for i in range(3)])
    np.testing.assert_allclose(found[row.segments[0] > 0], expected, atol=atol)
    assert np.isfinite(found).all()


def a_cached_prompt_goes_on_as_the_whole_conversation_does(world, width, room, atol, slots=None):
    """Also returns the cache, of `slots` slots (None: as many as the row has tokens)."""
    _, model, params, processor, pictures = world
    whole = batch(processor, [conversation(pictures[2]), conversation(*pictures[:2]), conversation()], width, room)
    cut = whole.segments.sum(axis=1) - 3
    inside = np.arange(width) < cut[:, None]
    prompts = whole._replace(tokens=whole.tokens * inside, segments=whole.segments * inside)
    expected = np.asarray(model.hidden(params, whole))
    hidden, cache = model.prefill(params, prompts, model.init_cache(3, width if slots is None else slots))
    for row in range(3):
        np.testing.assert_allclose(hidden[row, : cut[row]], expected[row, : cut[row]], atol=atol)
    behind = (cut[:, None] + np.arange(3)).astype(np.int32)
    found, _ = model.decode(params, np.take_along_axis(whole.tokens, behind, 1), behind, cache)
    np.testing.assert_allclose(found, np.take_along_axis(expected, behind[..., None], 1), atol=atol)
    return cache
