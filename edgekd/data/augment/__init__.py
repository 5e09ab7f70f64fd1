"""Augmentation: new texts from the user's own, with provenance and without labels; one file a family of policies."""
