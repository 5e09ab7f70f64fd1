import pytest

from edgekd.data.augment.apply import augment
from edgekd.data.augment.files import read_augmented, write_augmented
from edgekd.data.files import read_table
from edgekd.data.split import Split
from edgekd.errors import DataError
from edgekd.settings.augment import Casing, Swap
from tests.data.augment.conftest import tags, texts


def pairs():
    split = texts()
    return Split("train", split.texts, split.texts[::-1])


@pytest.mark.parametrize("split", [texts(), tags(), pairs(), texts(0), tags(0)], ids=lambda split: str(len(split)))
def test_what_is_written_is_read(tmp_path, split):
    made = augment(split, [Swap(), Casing()], seed=3, copies=2, allow_pairs=True)
    write_augmented(tmp_path / "made.parquet", made)
    read = read_augmented(tmp_path / "made.parquet")
    assert read.split == made.split
    assert read.parents.tolist() == made.parents.tolist()
    assert read.parents.dtype == made.parents.dtype
    assert (read.policies, read.seed, read.alignment, read.notes) == (
        made.policies, made.seed, made.alignment, made.notes,
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["made.parquet"]


def test_every_row_tells_where_it_comes_from(tmp_path):
    made = augment(texts(), [Swap()], seed=3)
    write_augmented(tmp_path / "made.parquet", made)
    row = read_table(tmp_path / "made.parquet").rows[0]
    assert row == {"text": made.split.texts[0], "parent": int(made.parents[0]), "policy": "swap", "seed": 3}


def test_other_files_are_refused(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    parquet.write_table(arrow.table({"text": ["a"]}), tmp_path / "other.parquet")
    for name, message in (("broken", "not a readable parquet"), ("other", "no augmented texts"), ("none", "none")):
        with pytest.raises(DataError, match=message):
            read_augmented(tmp_path / f"{name}.parquet")
