import os

import pytest

from edgekd.errors import UsageError
from edgekd.reading import inside, read_json, read_text, read_yaml

# Nine of what is nine of what is nine ...
LAUGHS = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


def written(tmp_path, text, name="file"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_a_file_is_read_once_it_is_known_to_be_one(tmp_path):
    assert read_text(written(tmp_path, "é")) == "é"
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("pipe", "not a file"), ("none", "No such file"), (".", "not a file")):
        with pytest.raises(UsageError, match=words):
            read_text(tmp_path / name, "mend it")


def test_a_file_too_large_is_not_read(tmp_path):
    # A hole: it takes no room on the disk, and would take all of the memory.
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match=r"huge\.json: 1,048,576 MiB, and at most 128 are read"):
        read_json(tmp_path / "huge.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "line 1: not valid JSON"), ("[" * 100_000, "too deep"), ("1" * 10_000, "too long"), ("", "not valid JSON")],
)
def test_json_that_is_none_is_one_line(tmp_path, text, words):
    with pytest.raises(UsageError, match=words):
        read_json(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "line 2: 'c' is given twice"),
        ("a: 1\na: 2", "line 2: 'a' is given twice"),
        ("a: " + "[" * 200, "too many levels"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
            "aliases",
        ),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("- 1", "expected a mapping"),
        ("a: [", "line 1: not valid YAML"),
        ("a: 2020-13-45", "not valid YAML"),
        ("# " + "x" * 2**20, "at most 1 are read"),
        ("? {a: 1}\n: 2", "unhashable key"),
    ],
)
def test_yaml_that_is_no_settings_is_one_line(tmp_path, text, words):
    with pytest.raises(UsageError, match=words):
        read_yaml(written(tmp_path, text))


def test_yaml_may_repeat_what_it_names(tmp_path):
    text = "base: &base {x: 1, y: 2}\nmore: {<<: *base, y: 3}\nagain: [*base, *base]\n"
    assert read_yaml(written(tmp_path, text))["more"] == {"x": 1, "y": 3}


def test_a_link_is_followed_inside_its_folder_and_in_the_hubs_cache_alone(tmp_path):
    outside = written(tmp_path, "secret", "secret.txt")
    folder = tmp_path / "models--a" / "snapshots" / "1a2b"
    folder.mkdir(parents=True)
    (tmp_path / "models--a" / "blobs").mkdir()
    written(folder, "x", "real")
    (folder / "near").symlink_to("real")
    (folder / "blob").symlink_to(written(tmp_path / "models--a" / "blobs", "x", "0f"))
    (folder / "far").symlink_to(outside)
    (tmp_path / "link").symlink_to(folder)
    for name in ("real", "near", "blob"):
        assert inside(tmp_path / "link", name).read_text() == "x"
    (folder / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="a link that leads nowhere"):
        inside(folder, "loop")
    for name in ("far", "../../../secret.txt"):
        with pytest.raises(UsageError, match="a link that leads out of the folder"):
            inside(folder, name)
