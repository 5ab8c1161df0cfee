"""A mixture keeps references to images: in memory, in the token cache, and as files where the data embed them."""

import hashlib
import json
import os

import numpy as np
import pytest

from merit_jax.data import dataset, group_by, image_contents
from merit_jax.data.chat_template import images_of
from merit_jax.data.manifest import Entry, read_manifest
from merit_jax.data.mixture import load_mixture
from merit_jax.data.records import read_entry
from merit_jax.models.pretrained.processor import load_processor
from tests.support.tiny_vision import folder, llava, picture


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_processor(folder(tmp_path_factory.mktemp("model"))).tokenizer


@pytest.fixture
def data(tmp_path):
    """Pictures below images/, and one file of two tasks."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        picture(tmp_path / f"images/{number}.png", 8 + 8 * number, 16)
    rows = [
        llava("0.png", task_name="colours"),
        llava(["1.png", "2.png"], task_name="shapes"),
        llava("3.png", task_name="colours"),
        llava(task_name="shapes"),
    ]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    write(tmp_path, flan={"file_name": "all.json", "group_by": "task_name", "image_root": "images"})
    return tmp_path


def write(path, **entries):
    (path / "m.json").write_text(json.dumps(entries))


def load(data, tokenizer, **options):
    return load_mixture(str(data / "m.json"), tokenizer, **{"max_length": 400, "seed": 0, **options})


def names(dataset):
    return [[image["path"].rpartition("/")[2] for image in example.images] for example in dataset.train]


def test_one_file_is_as_many_datasets_as_its_column_has_values(data, tokenizer):
    colours, shapes = load(data, tokenizer)
    assert (colours.name, shapes.name) == ("colours", "shapes")
    assert names(colours) == [["0.png"], ["3.png"]]
    assert names(shapes) == [["1.png", "2.png"], []]
    assert colours.train[0].images == ({"type": "image", "path": str(data.resolve() / "images/0.png")},)
    assert colours.report.digest != shapes.report.digest
    assert [dataset.name for dataset in load(data, tokenizer, include=["sh*"])] == ["shapes"]


def test_a_grouped_file_is_parsed_once(data, tokenizer, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        group_by,
        "read_rows",
        lambda path, on_error, read=group_by.read_rows: parsed.append(path) or read(path, on_error),
    )
    load(data, tokenizer)
    assert len(parsed) == 1
    assert group_by._parse.cache_info().currsize == 0


def test_groups_split_held_out_rows_each_for_itself(data, tokenizer):
    write(data, flan={"file_name": "all.json", "group_by": "task_name", "image_root": "images", "held_out": 1})
    assert [(len(d.train), len(d.held_out)) for d in load(data, tokenizer)] == [(1, 1), (1, 1)]


def test_a_held_out_file_is_grouped_too(data, tokenizer):
    (data / "test.json").write_text(json.dumps([llava(task_name="shapes", question="Why?")]))
    entry = {"file_name": "all.json", "group_by": "task_name", "image_root": "images", "eval_file_name": "test.json"}
    write(data, flan=entry)
    colours, shapes = load(data, tokenizer)
    assert (len(colours.held_out), [r.messages[0]["content"] for r in shapes.held_out]) == (0, ["Why?"])
    (data / "test.json").write_text(json.dumps([llava(task_name="sizes")]))
    with pytest.raises(
        ValueError, match=r"m.json: .*test.json holds out rows of 'sizes', of which .*all.json has none"
    ):
        load(data, tokenizer)


def test_names_that_come_twice_are_refused(data, tokenizer):
    write(data, flan={"file_name": "all.json", "group_by": "task_name"}, shapes={"file_name": "all.json"})
    with pytest.raises(
        ValueError, match=r"m.json: dataset 'shapes' comes from both entry 'flan' and entry 'shapes'; rename"
    ):
        load(data, tokenizer)


@pytest.mark.parametrize(("name", "reason"), [(None, "holds None"), (" ", "holds ' '"), (..., "is missing")])
def test_a_row_that_does_not_name_its_dataset_is_told_once(data, name, reason):
    rows = [llava(task_name="a"), llava(**({} if name is ... else {"task_name": name})), llava(task_name="b")]
    (data / "all.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=rf"all.json\[1\]: the column 'task_name', which names the dataset, {reason}"):
        read_manifest(str(data / "m.json"))
    errors = []
    entries = read_manifest(str(data / "m.json"), on_error=errors.append)
    assert [len(read_entry(entry, errors.append)) for entry in entries] == [1, 1]
    assert len(errors) == 1


def test_images_lie_beside_the_data_unless_the_manifest_says_where(data):
    (data / "images/all.json").write_text(json.dumps([llava("0.png")]))
    (record,) = read_entry(Entry("a", (str(data / "images/all.json"),)))
    assert record.messages[0]["content"][0]["path"] == str(data.resolve() / "images/0.png")


def test_a_run_names_the_image_root_that_would_help(data, tokenizer):
    write(data, flan={"file_name": "all.json", "group_by": "task_name"})
    with pytest.raises(
        ValueError, match=r"all.json\[0\]: .*/0.png: no such image; .*`image_root: .*/images` in the manifest"
    ):
        load(data, tokenizer, include=["colours"])


def test_images_start_from_the_folder_of_each_file(data, tokenizer):
    for name in ("x", "y"):
        (data / name).mkdir()
        picture(data / name / "a.png", 16, 16)
        (data / name / f"{name}.json").write_text(json.dumps([llava("a.png")]))
    write(data, a={"file_name": ["x/x.json", "y/y.json"]})
    (dataset,) = load(data, tokenizer)
    found = [image["path"] for example in dataset.train for image in example.images]
    assert found == [str(data.resolve() / name / "a.png") for name in ("x", "y")]


def test_a_cached_mixture_keeps_its_images_and_its_cuts(data, tokenizer, tmp_path):
    options = {"max_length": 90, "cache_dir": str(tmp_path / "cache")}
    fresh, again = load(data, tokenizer, **options), load(data, tokenizer, **options)
    for one, other in zip(fresh, again, strict=True):
        assert names(one) == names(other) != []
        assert not other.train.tokens.flags.owndata
        for example, cached in zip(one.train, other.train, strict=True):
            np.testing.assert_array_equal(example.tokens, cached.tokens)
            assert example.images == cached.images


def test_another_image_root_is_another_dataset(data, tokenizer, tmp_path):
    options = {"cache_dir": str(tmp_path / "cache"), "include": ["colours"]}
    (one,) = load(data, tokenizer, **options)
    (data / "images").rename(data / "pictures")
    write(data, flan={"file_name": "all.json", "group_by": "task_name", "image_root": "pictures"})
    (other,) = load(data, tokenizer, **options)
    assert one.report.digest != other.report.digest
    assert other.train[0].images[0]["path"] == str(data.resolve() / "pictures/0.png")


def test_damaged_references_are_refused(data, tokenizer, tmp_path):
    load(data, tokenizer, include=["colours"], cache_dir=tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/images.json")
    for content in ("[[", "[[]]", "7"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"images.json: damaged token cache .*; delete"):
            load(data, tokenizer, include=["colours"], cache_dir=tmp_path / "cache")


@pytest.fixture
def cauldron(data):
    """A parquet file that embeds two images, one of them twice."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    contents = [(data / f"images/{number}.png").read_bytes() for number in (0, 1, 0)]
    turns = [{"user": "What?", "assistant": "noise", "source": "x"}]
    rows = [{"images": [{"bytes": content, "path": None}], "texts": turns} for content in contents]
    parquet.write_table(pyarrow.Table.from_pylist(rows), data / "c.parquet")
    write(data, c={"file_name": "c.parquet", "formatting": "cauldron"})
    return contents


def test_embedded_images_stay_in_memory_without_a_cache(data, cauldron, tokenizer):
    (dataset,) = load(data, tokenizer)
    assert [example.images[0]["bytes"] for example in dataset.train] == cauldron


def test_embedded_images_are_unpacked_once_beside_the_cache(data, cauldron, tokenizer, tmp_path):
    write(data, c={"file_name": "c.parquet", "formatting": "cauldron", "held_out": 1})
    cache = (tmp_path / "cache").resolve()
    fresh, again = (load(data, tokenizer, cache_dir=cache)[0] for _ in range(2))
    files = {path.name: path.read_bytes() for path in (cache / "images").iterdir()}
    assert files == {hashlib.sha256(content).hexdigest(): content for content in cauldron}
    assert names(fresh) == names(again)
    assert fresh.held_out == again.held_out
    part = fresh.held_out[0].messages[0]["content"][0]
    assert part["path"].startswith(f"{cache}/images/")


def digest(data, tokenizer, cache):
    return load(data, tokenizer, include=["colours"], cache_dir=cache)[0].report.digest


def repaint(path, old):
    """Writes another picture of the same size in bytes over one, with its time."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, old)


@pytest.mark.parametrize("settled", [False, True])
def test_another_image_under_the_same_name_is_another_dataset(data, tokenizer, tmp_path, monkeypatch, settled):
    monkeypatch.setattr(image_contents, "SETTLED_NS", -(10**12) if settled else 10**12)
    image = data / "images/3.png"
    before = digest(data, tokenizer, tmp_path / "cache")
    assert digest(data, tokenizer, tmp_path / "cache") == before
    repaint(image, image.stat().st_mtime_ns)
    assert digest(data, tokenizer, tmp_path / "cache") != before


def test_rows_of_an_image_that_has_changed_are_tokenised_again(data, tokenizer, tmp_path):
    image, cache = data / "images/3.png", tmp_path / "cache"
    lengths = {}
    for size in (16, 64, 16):
        picture(image, size, size)
        (fresh,), (kept,) = (load(data, tokenizer, include=["colours"], cache_dir=folder) for folder in (None, cache))
        np.testing.assert_array_equal(kept.train.tokens, fresh.train.tokens)
        lengths[size] = len(kept.train.tokens)
    assert lengths[16] < lengths[64]


def test_an_unchanged_image_is_not_read_again(data, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(image_contents, "SETTLED_NS", -(10**12))
    before = digest(data, tokenizer, tmp_path / "cache")
    monkeypatch.setattr(image_contents, "file_checksum", lambda path: pytest.fail(f"read {path}"))
    assert digest(data, tokenizer, tmp_path / "cache") == before


def test_held_out_images_are_told_apart_from_those_that_are_trained_on(data, tokenizer, tmp_path):
    write(data, c={"file_name": "all.json", "image_root": "images", "held_out": 1, "formatting": "llava"})
    one, other = (load(data, tokenizer, cache_dir=tmp_path / "cache", max_held_out=n)[0].report for n in (0, 1))
    assert one == other
    assert (one.held_out_images == "") == (not any(images_of(r.messages) for r in load(data, tokenizer)[0].held_out))


def test_a_missing_image_of_a_cached_dataset_is_named(data, tokenizer, tmp_path):
    digest(data, tokenizer, tmp_path / "cache")
    (data / "images/3.png").unlink()
    with pytest.raises(ValueError, match=r"image .*images/3\.png is missing; put it back"):
        digest(data, tokenizer, tmp_path / "cache")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no picture")])
@pytest.mark.parametrize("tokens", [True, False])
def test_a_damaged_unpacked_image_is_unpacked_again(data, cauldron, tokenizer, tmp_path, damage, tokens):
    (fresh,) = load(data, tokenizer, cache_dir=tmp_path / "cache")
    if not tokens:
        for path in (tmp_path / "cache").glob("*/offsets.npy"):
            path.unlink()
    damage(tmp_path / "cache/images" / hashlib.sha256(cauldron[1]).hexdigest())
    (again,) = load(data, tokenizer, cache_dir=tmp_path / "cache")
    assert again.report == fresh.report
    files = {path.name: path.read_bytes() for path in (tmp_path / "cache/images").iterdir()}
    assert files == {hashlib.sha256(content).hexdigest(): content for content in cauldron}


def test_a_moved_cache_keeps_its_images(data, cauldron, tokenizer, tmp_path, monkeypatch):
    (fresh,) = load(data, tokenizer, cache_dir=tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "moved")
    monkeypatch.setattr(dataset, "save_table", lambda *_: pytest.fail("tokenised again"))
    (moved,) = load(data, tokenizer, cache_dir=tmp_path / "moved")
    assert (names(moved), moved.report) == (names(fresh), fresh.report)
    folder = str((tmp_path / "moved/images").resolve())
    assert all(image["path"].startswith(folder) for example in moved.train for image in example.images)


def test_a_file_that_is_written_while_it_is_read_is_refused(data, tokenizer, tmp_path, monkeypatch):
    def written(*args, read=dataset.read_splits, **options):
        found = read(*args, **options)
        (data / "all.json").write_text((data / "all.json").read_text() + " ")
        return found

    monkeypatch.setattr(dataset, "read_splits", written)
    with pytest.raises(ValueError, match=r"dataset 'colours': .*all\.json was written while it was read; start again"):
        digest(data, tokenizer, tmp_path / "cache")


def test_a_row_whose_image_is_missing_is_skipped_on_request(data, tokenizer, tmp_path):
    (data / "images/3.png").unlink()
    with pytest.raises(ValueError, match=r"all\.json\[2\].*3\.png"):
        load(data, tokenizer)
    for _ in range(2):  # read, and from the cache
        colours, shapes = load(data, tokenizer, on_error="skip", cache_dir=tmp_path / "cache")
        assert names(colours) == [["0.png"]]
        assert [row.where.rpartition("/")[2] for row in colours.report.skipped] == ["all.json[2]"]
        assert "3.png" in colours.report.skipped[0].reason
        assert shapes.report.skipped == ()
