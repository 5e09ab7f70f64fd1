import numpy as np
import pytest

SUBJECTS = {
    "bank": ["account", "card", "money", "transfer", "balance", "payment", "loan", "cheque", "deposit", "interest"],
    "kitchen": ["soup", "oven", "flour", "butter", "recipe", "onion", "kettle", "spoon", "dough", "pepper"],
    "travel": ["flight", "hotel", "ticket", "train", "luggage", "airport", "visa", "ferry", "island", "museum"],
}
FRAMES = ["what about the", "please show me my", "where is the", "tell me more of this", "i want another"]


def sentences(subject: str, count: int, seed: int = 0, words: tuple[int, int] = (3, 6)) -> list[str]:
    """Different sentences about one subject."""
    rng = np.random.default_rng([seed, len(subject)])
    found: dict[str, None] = {}
    while len(found) < count:
        nouns = rng.choice(SUBJECTS[subject], rng.integers(*words), replace=False)
        found[f"{rng.choice(FRAMES)} {' '.join(nouns)}"] = None
    return list(found)


def embed(texts):
    """A vector a text: how many of each subject's words it has."""
    assert len(texts) <= 1024
    rows = [[sum(word in nouns for word in text.split()) for nouns in SUBJECTS.values()] for text in texts]
    return np.array(rows, np.float32) + 0.1


@pytest.fixture
def banking():
    return sentences("bank", 200)
