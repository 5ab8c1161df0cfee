"""Every format of images gives the same conversation of parts, whose paths stay below their root."""

import base64

import pytest

from merit_jax.data.formats import ColumnMap, detect, to_record
from tests.support.tiny_vision import llava

LLAMA_FACTORY = ColumnMap(
    {"messages": "messages", "images": "images"},
    {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
)


def text(value):
    return {"type": "text", "text": value}


@pytest.fixture
def root(tmp_path):
    """A folder with a.png, sub/b.png, and a link to a picture outside."""
    (tmp_path / "root/sub").mkdir(parents=True)
    for name in ("root/a.png", "root/sub/b.png", "outside.png"):
        (tmp_path / name).touch()
    (tmp_path / "root/link.png").symlink_to(tmp_path / "outside.png")
    return (tmp_path / "root").resolve()


def read(row, root, name=None, layout=ColumnMap()):
    return to_record(name or detect(row, "f:1", layout), row, "f:1", layout._replace(image_root=str(root)))


def shown(root, name):
    return {"type": "image", "path": str(root / name)}


ASK, ANSWER = "What is this?", {"role": "assistant", "content": "noise"}
OPENAI = [{"type": "image", "image": "a.png"}, {"type": "text", "text": ASK}]
ONE_IMAGE = {
    "llava": (llava("a.png"), ColumnMap()),
    "llava list": (llava(["a.png"], id="7", task_name="object"), ColumnMap()),
    "cauldron": (
        {"images": [{"bytes": None, "path": "a.png"}], "texts": [{"user": ASK, "assistant": "noise"}]},
        ColumnMap(),
    ),
    "messages image": ({"messages": [{"role": "user", "content": OPENAI}, ANSWER]}, ColumnMap()),
    "messages path": (
        {"messages": [{"role": "user", "content": [{"type": "image", "path": "sub/../a.png"}, text(ASK)]}, ANSWER]},
        ColumnMap(),
    ),
    "messages url": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}, text(ASK)]},
                ANSWER,
            ]
        },
        ColumnMap(),
    ),
    "messages column": (
        {"messages": [{"role": "user", "content": [{"type": "image"}, text(ASK)]}, ANSWER], "images": ["a.png"]},
        ColumnMap(),
    ),
    "llama factory": (
        {"messages": [{"role": "user", "content": f"<image>{ASK}"}, ANSWER], "images": ["a.png"]},
        LLAMA_FACTORY,
    ),
}


@pytest.mark.parametrize("case", ONE_IMAGE)
def test_one_image_and_a_question_are_the_same_in_every_format(root, case):
    row, layout = ONE_IMAGE[case]
    name = "sharegpt" if case == "llama factory" else None
    record = read(row, root, name, layout)
    assert record.messages == ({"role": "user", "content": [shown(root, "a.png"), text(ASK)]}, ANSWER)


@pytest.mark.parametrize(
    ("case", "name"), [("llava", "llava"), ("cauldron", "cauldron"), ("messages image", "messages")]
)
def test_the_format_is_told_from_the_keys(case, name):
    assert detect(ONE_IMAGE[case][0], "f:1") == name


def test_markers_say_where_images_go(root):
    turns = [
        {"from": "human", "value": "Compare <image> and\n<image>\nplease."},
        {"from": "gpt", "value": "same"},
        {"from": "human", "value": "And <image>"},
        {"from": "gpt", "value": "<image> is none"},
    ]
    first, _, second, last = read({"image": ["a.png", "sub/b.png", "a.png"], "conversations": turns}, root).messages
    a, b = shown(root, "a.png"), shown(root, "sub/b.png")
    assert first["content"] == [text("Compare "), a, text(" and"), b, text("please.")]
    assert second["content"] == [text("And "), a]
    assert last["content"] == "<image> is none"


def test_a_row_of_llava_without_image_is_text(root):
    for row in (llava(), {**llava(), "image": None}, {**llava(), "image": ""}):
        assert read(row, root, "llava").messages == ({"role": "user", "content": ASK}, ANSWER)


def test_a_row_with_an_image_is_read_in_a_file_that_begins_with_text(root):
    assert read(llava("a.png"), root, "sharegpt").messages[0]["content"] == [shown(root, "a.png"), text(ASK)]


def test_a_marker_in_text_alone_is_text(root):
    row = {"conversations": [{"from": "human", "value": "<image> is a tag"}, {"from": "gpt", "value": "yes"}]}
    assert read(row, root).messages[0]["content"] == "<image> is a tag"


def test_images_of_the_cauldron_come_before_the_first_question(root):
    turns = [
        {"user": "One?", "assistant": "two", "source": "x"},
        {"user": "Three?", "assistant": "four", "source": "x"},
    ]
    first, _, second, _ = read(
        {"images": [{"bytes": b"1", "path": None}, {"bytes": b"2"}], "texts": turns}, root
    ).messages
    assert first["content"] == [{"type": "image", "bytes": b"1"}, {"type": "image", "bytes": b"2"}, text("One?")]
    assert second["content"] == "Three?"


def test_options_and_facts_travel_with_a_row_of_images(root):
    record = read(llava("a.png", answer="b", options=["a", "b"], facts=["red", "round"]), root)
    assert (record.options, record.facts) == (("a", "b"), ("red", "round"))
    assert read({"inputs": "Q", "targets": "A", "facts": ["red"]}, root).facts == ("red",)
    assert read(llava("a.png"), root).facts is None


def test_an_alpaca_row_takes_images_from_the_column_that_is_named(root):
    row = {"instruction": f"<image>{ASK}", "output": "noise", "images": ["a.png"]}
    messages = read(row, root, "alpaca", ColumnMap({"images": "images"})).messages
    assert messages[0]["content"] == [shown(root, "a.png"), text(ASK)]


def test_paths_in_the_root_are_taken_in_every_spelling(root):
    for value in ("a.png", "./sub/../a.png", f"{root}/a.png", f"file://{root}/a.png"):
        assert read(llava(value), root).messages[0]["content"][0] == shown(root, "a.png")


def test_data_urls_are_decoded(root):
    url = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
    assert read(llava(url), root).messages[0]["content"][0] == {"type": "image", "bytes": b"pixels"}


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def test_base64_without_a_prefix_is_read(root):
    expected = {"type": "image", "bytes": base64.b64decode(PIXEL)}
    values = (PIXEL, f"{PIXEL[:76]}\n{PIXEL[76:]}\n", {"bytes": PIXEL}, {"url": f"data:image/png;base64,{PIXEL}"})
    for value in values:
        assert read(llava("a.png") | {"image": value}, root).messages[0]["content"][0] == expected
    source = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert read(parts(source, text(ASK)) | {"images": []}, root).messages[0]["content"][0] == expected


def test_a_file_url_is_decoded_and_a_path_is_not(root):
    for value, name in ((f"file://{root}/a%20%C3%A9.png", "a é.png"), ("a%20b.png", "a%20b.png")):
        assert read(llava("a.png") | {"image": value}, root).messages[0]["content"][0] == shown(root, name)


@pytest.mark.parametrize(
    "value",
    [
        "ab+/" * 250_000,
        "data:image/png;base64,?" + "a" * 10**6,
        "/" + "a/" * 10**5,
        "x" * 10**6,
        ["y" * 10**6],
        "../" * 1000,
    ],
)
def test_a_long_value_is_cut_in_the_message(root, value):
    with pytest.raises(ValueError, match=r"f:1: .*image") as caught:
        read(llava("a.png") | {"image": value}, root)
    assert len(str(caught.value)) < 800


def test_paths_in_a_bucket_stay_below_their_root():
    (turn, _) = read(llava("sub/../a.png"), "gs://bucket/root").messages
    assert turn["content"][0] == {"type": "image", "path": "gs://bucket/root/a.png"}
    for value in ("../a.png", "gs://bucket/a.png", "/root/a.png", "gs://other/root/a.png"):
        with pytest.raises(ValueError, match="outside the image root gs://bucket/root"):
            read(llava(value), "gs://bucket/root")


def parts(*content):
    return {"messages": [{"role": "user", "content": list(content)}, ANSWER]}


def numbered(*indices):
    found = [{"index": index, "type": "image", "text": None} for index in indices]
    return parts(*found, {"index": None, **text(ASK)}) | {"images": ["a.png", "sub/b.png"]}


def test_an_index_that_numbers_the_images_in_order_is_read(root):
    for indices in ((0, 1), (None, 1), (None, None)):
        content = read(numbered(*indices), root).messages[0]["content"]
        assert content == [shown(root, "a.png"), shown(root, "sub/b.png"), text(ASK)]


BAD = {
    "images in another order": (numbered(1, 0), "f:1: a content part has the 'index' 1 and is image 0 of the row"),
    "an index of a text": (parts({**text("Q"), "index": 0}), "a content part has a field 'index', which is not read"),
    "more images": (
        llava(["a.png", "a.png"]) | {"image": "a.png"},
        "f:1: 1 images for 2 <image> markers in the user's turns",
    ),
    "more markers": (llava("a.png") | {"image": ["a.png"] * 3}, "f:1: 3 images for 1 <image> markers"),
    "no images": (llava("a.png") | {"image": None}, "f:1: 0 images for 1 <image> markers"),
    "both columns": (llava("a.png") | {"images": ["a.png"]}, "f:1: both 'image' and 'images' are set; set `columns`"),
    "parent": (
        llava("../outside.png"),
        r"f:1: image '../outside.png' is .*/outside.png, outside the image root .*/root; move",
    ),
    "absolute": (
        llava("/etc/passwd"),
        "f:1: image '/etc/passwd' is /etc/passwd, outside the image root .*; move it below, or",
    ),
    "link": (llava("link.png"), "f:1: image 'link.png' is .*/outside.png, outside the image root .*/root;"),
    "root": (llava("."), r"f:1: image '\.' is .*/root, outside the image root"),
    "web": (
        llava("https://x.org/a.png"),
        r"f:1: image 'https://x.org/a.png' is on the web; nothing is downloaded: name a",
    ),
    "an object without image": (
        llava("a.png") | {"image": {"file": "a.png"}},
        r"f:1: an image needs one of .* \['file'\]",
    ),
    "an unknown source": (
        parts({"type": "image", "source": {"type": "file"}}),
        "f:1: an image's `source` is .*; expected base64",
    ),
    "number": (llava("a.png") | {"image": 7}, "f:1: an image must be a path or bytes, got 7"),
    "nothing in a list": (llava("a.png") | {"image": [None]}, "f:1: an image must be a path or bytes, got None"),
    "video": (llava("a.png", video="a.mp4"), "f:1: the row has a 'video' field, which is not read as 'llava'; remove"),
    "video part": (
        parts({"type": "video", "video": "a.mp4"}),
        "f:1: content part .*; expected one of type 'text', 'image'",
    ),
    "part without image": (
        parts({"type": "image"}),
        "f:1: a content part of type 'image' names no image; set its `image`",
    ),
    "part without url": (parts({"type": "image_url"}), "f:1: an image must be a path or bytes, got None"),
    "spare image": (
        parts(text("Q")) | {"images": ["a.png"]},
        "f:1: column 'images' holds 1 images, .* has parts for 0",
    ),
    "bad data url": (llava("data:image/png;base64,?"), "f:1: image 'data:image/png;base64,.*' is no base64 data URL"),
    "data url of text": (
        llava("data:text,a"),
        "f:1: image 'data:text,a' is no base64 data URL .it does not begin with",
    ),
    "image in a response": (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": OPENAI}]},
        "f:1: an image in a turn of role 'assistant'; images belong into the user's turns",
    ),
    "option missing": (llava("a.png", options=["a", "b"]), "f:1: target 'noise' is not among the options"),
    "alpaca": (
        {"instruction": "Q", "output": "A", "image": "a.png"},
        "'image' field, which is not read as 'alpaca'; remove",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_refused_with_place_and_reason(root, case):
    row, reason = BAD[case]
    with pytest.raises(ValueError, match=reason):
        read(row, root)


def test_a_column_of_images_that_is_not_the_named_one_is_refused(root):
    with pytest.raises(ValueError, match="the row has a 'image' field, which is not read as 'sharegpt'"):
        read(llava("a.png") | {"photos": ["a.png"]}, root, None, ColumnMap({"images": "photos"}))
