"""How a student's graph is written. Imports neither torch nor onnx."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.models.spec import Spec


class GraphOptions(Spec):
    """Variants of the written graph: the same function, at another speed on another runtime.

    Attributes:
        fused_qkv: Compute queries, keys and values in one product.
        residual: Node that adds the residual. "sum" keeps onnxruntime from fusing it with the norm, where the file
            carries inferred shapes, into SkipLayerNormalization: slower on the CPU than the two apart.
        opset: ONNX opset. LayerNormalization exists from 17, Gelu from 20: below, GELU is written out, in the
            form that onnxruntime fuses. onnxruntime 1.20 knows opsets up to 21.
    """

    fused_qkv: bool = True
    residual: Literal["sum", "add"] = "sum"
    opset: int = Field(default=17, ge=17, le=21)
