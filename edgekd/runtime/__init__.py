"""Inference on a bundle: `load("bundle").predict(["..."])`. It needs no torch."""

from edgekd.runtime.model import Model, load

__all__ = ["Model", "load"]
