import pytest
from pydantic import ValidationError

from edgekd.settings.select import GenericText


def test_how_many_are_wanted():
    assert GenericText(path="x").wanted(70) == 70
    assert GenericText(path="x", ratio=2.5).wanted(3) == 8
    assert GenericText(path="x", ratio=0.1).wanted(1) == 1
    assert GenericText(path="x", ratio=3, size=5).wanted(70) == 5


@pytest.mark.parametrize("wrong", [{"path": ""}, {"ratio": 0}, {"size": 0}, {"method": "best"}, {"buckets": 1}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValidationError):
        GenericText(**{"path": "x"} | wrong)
