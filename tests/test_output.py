"""Where results go, on mount points and under parents that cannot be written as well."""

import os
from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.output import building, check_replaceable, hidden, is_empty, publish


def made(out, content):
    with building(out) as work:
        (work / "file").write_text(content)
        publish(work, out)


@pytest.fixture(params=["beside", "mount", "parent"])
def out(request, tmp_path, monkeypatch):
    """A folder whose result is built beside it, and two in which it must be built."""
    place = tmp_path / "out"
    place.mkdir()
    if request.param == "mount":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == place)
    if request.param == "parent":
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    return place


def test_a_result_replaces_another_when_it_is_finished(out):
    made(out, "old")
    with building(out) as work:
        (work / "file").write_text("new")
        assert (out / "file").read_text() == "old"
        publish(work, out)
    assert (out / "file").read_text() == "new"
    assert sorted(path.name for path in out.iterdir()) == ["file", "files.json"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "photos/a.jpg", "files.json/x"])
def test_what_a_result_does_not_name_is_never_replaced(out, name):
    made(out, "old")
    if name.startswith("files.json"):
        (out / "files.json").unlink()
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    with pytest.raises(UsageError, match="files that edgekd has not made"), building(out):
        pass
    assert (out / name).read_text() == "mine"
    assert (out / "file").read_text() == "old"


def test_what_comes_while_a_result_is_built_stays(out):
    with building(out) as work:
        (work / "file").write_text("new")
        (out / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match="the finished result is in"):
            publish(work, out)
    assert (out / "notes.txt").read_text() == "mine"
    assert (work / "file").read_text() == "new"


def test_what_is_being_built_is_nothing_of_the_users(out):
    with building(out):
        assert is_empty(out)


def test_what_fails_leaves_the_old_result(out):
    made(out, "old")

    def fail():
        with building(out) as work:
            (work / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (out / "file").read_text() == "old"
    made(out, "new")
    assert (out / "file").read_text() == "new"


def test_two_runs_do_not_make_the_same(out):
    with building(out), pytest.raises(UsageError, match="another run is making it"), building(out):
        pass


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "result", target_is_directory=True)
    with pytest.raises(UsageError, match=r"is a link to .*result, which is not there"):
        check_replaceable(tmp_path / "out", {})
    (tmp_path / "disk" / "result").mkdir()
    made(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "result" / "file").read_text() == "new"


def test_where_nothing_can_be_written_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="cannot be written to; choose another folder"):
        check_replaceable(tmp_path / "out", {})


def test_hidden_files_lie_beside_or_inside(out):
    assert hidden(out, "work").parent in (out, out.parent)


def test_what_a_killed_run_had_moved_away_is_put_back(out):
    made(out, "old")
    aside = hidden(out, "old")
    aside.mkdir()
    for file in [file for file in out.iterdir() if file != aside]:
        file.rename(aside / file.name)
    with building(out):
        assert (out / "file").read_text() == "old"


def test_what_a_file_system_makes_at_its_root_is_nothing_of_the_users(out):
    (out / "lost+found").mkdir()
    assert is_empty(out)
    made(out, "new")
    assert (out / "file").read_text() == "new"


def test_a_folder_bound_from_the_same_file_system_is_a_mount(tmp_path, monkeypatch):
    place = tmp_path / "with blank"
    place.mkdir()
    line = f"36 35 98:0 /a {str(place).replace(' ', chr(92) + '040')} rw - ext4 /dev/a rw\n"
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, **_: line if str(self).endswith("mountinfo") else read(self, encoding="utf-8")
    )
    assert hidden(place, "work").parent == place
