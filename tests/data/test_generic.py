from edgekd.data.generic import SENTENCES, generic_split


def test_sentences_are_many_and_varied():
    assert len(set(SENTENCES)) == 64
    lengths = sorted(len(s.split()) for s in SENTENCES)
    assert lengths[0] == 1
    assert lengths[-1] > 30


def test_pairs_are_neighbours():
    split = generic_split(pair=True)
    assert split.pairs[0] == split.texts[1]
    assert split.pairs[-1] == split.texts[0]
    assert generic_split().pairs is None
