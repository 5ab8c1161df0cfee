"""The words of this world, in a fixed order, so that a token's id depends on nothing that is sampled or installed."""

from examples.shapes.glyphs import DIGITS, LETTERS
from examples.shapes.scenes import COLORS, SHAPES, SIZES
from examples.shapes.words import CLASSES, NUMBERS, PLACES, SYNONYMS

PAD, UNKNOWN, END = "<|pad|>", "<|unk|>", "<|im_end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
VISION_START, IMAGE, VISION_END, VIDEO = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"
SPECIAL = (PAD, UNKNOWN, END, *ROLES, VISION_START, IMAGE, VISION_END, VIDEO)

_TEXT = """
. , ? : ; a b c all an and angular answer are at about below above by call can caption cell choose code color compare
count describe description detail digit do does each even everything explain false fit for frequent from full give grid
hand has have holds how i image in is it kind left letter letters lie like list locate look looks me many more name
no not nothing now number object objects odd of often on one option options or picture place places please read right
round row say see seen shade shape shaped show shown shows side size spell tag tags tell than that the their them there
these thing things this those to true two what where which whole with word would write written yes you r1 r2 r3 c1 c2 c3 out
larger smaller both any other same
"""
_EASY_VQA = "does image contain there not present shape color what is a the in of rectangle teal black brown gray"
"""Words of the questions and answers of the package easy-vqa that this world lacks (and some that it has)."""


def _words() -> tuple[str, ...]:
    lists = (COLORS, SYNONYMS.values(), SHAPES, CLASSES.values(), SIZES, NUMBERS, LETTERS, DIGITS)
    words = [word for group in lists for word in group]
    words += [word for place in PLACES for word in place.split()] + _TEXT.split() + _EASY_VQA.split()
    return tuple(sorted(set(words)))


VOCABULARY = (*SPECIAL, *_words())
"""Every token, in the order of its id."""
