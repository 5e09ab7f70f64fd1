"""How a student's graph is written, quantised and chosen. Imports neither torch nor onnx."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from edgekd.settings.base import Spec


class GraphOptions(Spec):
    """Variants of the written graph: the same function, at another speed on another runtime.

    Attributes:
        fused_qkv: Compute queries, keys and values in one product; where one token alone asks, keys and values.
        residual: Node that adds the residual. "sum" keeps onnxruntime from fusing it with the norm, where the file
            carries inferred shapes, into SkipLayerNormalization: slower on the CPU than the two apart.
        opset: ONNX opset. LayerNormalization exists from 17, Gelu from 20: below, GELU is written out, in the
            form that onnxruntime fuses. onnxruntime 1.20 knows opsets up to 21.
    """

    fused_qkv: bool = True
    residual: Literal["sum", "add"] = "sum"
    opset: int = Field(default=17, ge=17, le=21)


Scheme = Literal["dynamic", "static"]
Calibration = Literal["minmax", "percentile", "entropy"]


class Export(GraphOptions):
    """How a trained model becomes files: its graph, its INT8 file, and who chooses between forms of the graph.

    Attributes:
        choose: "given" writes the graph as the options above say; "measured" also writes its other forms and has
            onnxruntime's transformer optimiser rewrite it, measures all of them on the target, and keeps the fastest
            that answers the same.
        int8: "dynamic" scales activations as they come; "static" by ranges found beforehand on the transfer set.
        calibration: How "static" finds a range: the extremes, a percentile, or the least divergence.
        calibration_texts: Texts of the transfer set that "static" sees.
        per_channel: One scale a column of each weight. One a tensor is a few percent faster and costs accuracy.
    """

    choose: Literal["given", "measured"] = "given"
    int8: Scheme = "dynamic"
    calibration: Calibration = "minmax"
    calibration_texts: int = Field(default=256, ge=8)
    per_channel: bool = True

    @property
    def graph(self) -> GraphOptions:
        """What the writer takes."""
        return GraphOptions(**{name: getattr(self, name) for name in GraphOptions.model_fields})

    @model_serializer(mode="wrap")
    def _only_what_was_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as usual: keys of the store that were written before it could be chosen stay valid."""
        content: dict[str, Any] = handler(self)
        fields = Export.model_fields
        return {k: v for k, v in content.items() if k in GraphOptions.model_fields or v != fields[k].default}
