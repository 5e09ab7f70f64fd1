"""What the server takes and gives, as JSON schemas of the bundle's own task, for /openapi.json."""

from __future__ import annotations

from typing import Any

from edgekd.runtime.config import BundleConfig

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
# More labels than anyone reads in a page.
_MOST_LABELS = 200

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What is wrong and what helps, in one line."}},
}


def text_schema(config: BundleConfig) -> Schema:
    """One text as the task takes it."""
    if config.pair:
        return {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2, "description": "First text and second."}
    if config.per_word:
        words: Schema = {"type": "array", "items": _TEXT, "description": "The words of a text."}
        return {"oneOf": [_TEXT, words]}
    return _TEXT


def request_schema(config: BundleConfig, most: int) -> Schema:
    """The body of /predict; `most` texts at once."""
    scores = {"type": "boolean", "default": False, "description": "Give every label's score."}
    texts = {"type": "array", "items": text_schema(config), "maxItems": most}
    return {
        "type": "object",
        "required": ["texts"],
        "additionalProperties": False,
        "properties": {"texts": texts} | ({"all_scores": scores} if config.output != "value" else {}),
    }


def answers_schema(config: BundleConfig) -> Schema:
    """What /predict answers."""
    return _object(answers={"type": "array", "items": _answer(config)})


def _answer(config: BundleConfig) -> Schema:
    if config.output == "value":
        return _object(value=_NUMBER)
    label: Schema = _TEXT | ({"enum": list(config.labels)} if len(config.labels) <= _MOST_LABELS else {})
    span = _object(label=_TEXT, start={"type": "integer"}, end={"type": "integer"}, text=_TEXT, score=_NUMBER)
    span["properties"]["words"] = {
        "type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2,
        "description": "Of a text given as words: the first, and the one after the last.",
    }  # fmt: skip
    spans = {"type": "array", "items": span, "description": "Start and end are in characters."}
    scores = {"type": "object", "additionalProperties": _NUMBER, "description": "With all_scores."}
    if config.output == "flags":
        found = _object(labels={"type": "array", "items": _object(label=label, score=_NUMBER)})
    elif config.output == "joint":
        found = _object(label=label, score=_NUMBER, spans=spans)
    elif config.per_word:
        return _object(spans=spans)
    else:
        found = _object(label=label, score=_NUMBER)
    found["properties"]["scores"] = scores
    return found


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}
