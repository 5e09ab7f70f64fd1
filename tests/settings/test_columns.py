import pytest
from pydantic import ValidationError

from edgekd.settings.columns import Columns


def test_usual_names_are_found_in_order_and_without_case():
    assert Columns().find("text", ["Sentence", "query"]) == "Sentence"
    assert Columns().find("label", ["id", " Intent "]) == " Intent "
    assert Columns().find("label", ["id"]) is None


def test_a_named_column_wins_and_must_be_there():
    assert Columns(text="body").find("text", ["text", "body"]) == "body"
    assert Columns(text="body").find("text", ["text"]) is None


def test_an_unknown_role_is_an_error():
    with pytest.raises(ValidationError):
        Columns(texts="x")
