"""The words of this world, in a fixed order, so that a token's id depends on nothing that is sampled or installed."""

from merit_jax.examples.shapes.glyphs import DIGITS, LETTERS
from merit_jax.examples.shapes.scenes import COLORS, SHAPES, SIZES
from merit_jax.examples.shapes.words import CLASSES, NUMBERS, PLACES, SYNONYMS

PAD, UNKNOWN, END = "<|pad|>", "<|unk|>", "<|im_end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
VISION_START, IMAGE, VISION_END, VIDEO = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
SPECIAL = (PAD, UNKNOWN, END, *ROLES, VISION_START, IMAGE, VISION_END, VIDEO)

_TEXT = """
, . : ; ? a about above all and angular answer are at b below by c c1 c2 c3 call can caption cell choose color
compare count describe description detail digit do does even everything explain false fit for frequent from full
give grid hand has have holds how i in is it kind larger left letter letters like list locate look looks many me
more name no nothing number object objects odd of often on one option options or out picture place places please r1
r2 r3 read right round row say see seen shade shape shaped show shown shows side size spell tag tags tell that the
their there thing true two what where which with word would write written yes you
"""
_EASY_VQA = "black brown contain gray image not present rectangle teal"
"""Words of the questions and answers of the package easy-vqa that this world lacks."""


def _words() -> tuple[str, ...]:
    lists = (COLORS, SYNONYMS.values(), SHAPES, CLASSES.values(), SIZES, NUMBERS, LETTERS, DIGITS)
    words = [word for group in lists for word in group]
    words += [word for place in PLACES for word in place.split()] + _TEXT.split() + _EASY_VQA.split()
    return tuple(sorted(set(words)))


VOCABULARY = (*SPECIAL, *_words())
"""Every token, in the order of its id."""
