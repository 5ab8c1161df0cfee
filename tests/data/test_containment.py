"""Links that lead out of the folder that a file is named in."""

import json

import pytest

from merit_jax.data.images import image_part
from merit_jax.data.manifest import read_manifest


@pytest.fixture
def world(tmp_path):
    """A folder of data with links into a store, and a snapshot of a cache with links into its blobs."""
    store, data = tmp_path / "store", tmp_path / "data"
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "1", tmp_path / "cache" / "blobs"
    for folder in (store / "images", data, snapshot / "images", blobs):
        folder.mkdir(parents=True)
    for file in (store / "a.jsonl", data / "in.jsonl", store / "images" / "a.png", blobs / "1", blobs / "2"):
        file.write_text("{}\n")
    (data / "a.jsonl").symlink_to(store / "a.jsonl")
    (data / "images").symlink_to(store / "images")
    (data / "there.jsonl").symlink_to("in.jsonl")
    (snapshot / "a.jsonl").symlink_to("../../blobs/1")
    (snapshot / "images" / "a.png").symlink_to("../../../blobs/2")
    return tmp_path


def entry(folder, **fields):
    (folder / "m.json").write_text(json.dumps({"a": fields}))
    return read_manifest(str(folder / "m.json"))[0]


@pytest.mark.parametrize("key", ["file_name", "eval_file_name", "image_root"])
def test_a_link_of_a_manifest_that_leads_out_of_its_folder_is_refused_with_the_path_to_give(world, key):
    name = "images" if key == "image_root" else "a.jsonl"
    with pytest.raises(
        ValueError, match=rf"'{name}' is a link to {world}/store/{name}, outside .* give that path instead"
    ):
        entry(world / "data", **{"file_name": "in.jsonl", key: name})
    given = str(world / "store" / name)
    assert given in (lambda made: (*made.files, *made.held_out_files, made.layout.image_root))(
        entry(world / "data", **{"file_name": "in.jsonl", key: given})
    )


def test_links_inside_a_folder_and_into_the_store_of_a_cache_are_followed(world):
    assert entry(world / "data", file_name="there.jsonl").files[0] == str(world / "data" / "there.jsonl")
    snapshot = world / "cache" / "snapshots" / "1"
    found = entry(snapshot, file_name="a.jsonl", image_root="images")
    assert found.files[0] == str(snapshot / "a.jsonl")
    for root in (found.layout.image_root, str(snapshot)):
        name = "a.png" if root == found.layout.image_root else "images/a.png"
        assert image_part(name, root, "x:1")["path"] == str(world / "cache" / "blobs" / "2")


def test_a_link_of_an_image_root_that_leads_out_is_refused_and_the_root_may_be_one(world):
    (world / "data" / "pictures").mkdir()
    (world / "data" / "pictures" / "a.png").symlink_to(world / "store" / "images" / "a.png")
    with pytest.raises(
        ValueError, match=r"x:1: image 'a.png' is .*/store/images/a.png, outside the image root .*set `image_root`"
    ):
        image_part("a.png", str(world / "data" / "pictures"), "x:1")
    assert image_part("a.png", str(world / "data" / "images"), "x:1")["path"] == str(
        world / "store" / "images" / "a.png"
    )
    with pytest.raises(ValueError, match="outside the image root"):
        image_part("../secret", str(world / "cache" / "snapshots" / "1"), "x:1")
