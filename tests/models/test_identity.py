import shutil

from edgekd.models.identity import folder_id


def test_folder_id_follows_the_content(tiny_teacher, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_teacher, copy)
    assert folder_id(copy) == folder_id(tiny_teacher)
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert folder_id(copy) != folder_id(tiny_teacher)
