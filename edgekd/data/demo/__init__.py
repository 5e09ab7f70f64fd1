"""The demo that needs no data and no network: a synthetic task made from a grammar file."""

from edgekd.data.demo.generate import demo_encoder, generate_demo, tfidf_baseline

__all__ = ["demo_encoder", "generate_demo", "tfidf_baseline"]
