"""What BIO tags become when their words move."""


def moved_tags(tags, alignment):
    """The tags of a sentence's words at their new places, legal BIO if `tags` are.

    Args:
        tags: A tag an old word.
        alignment: For each new word its old word, see `Edited`.
    """
    moved, last = [], -1
    for source in alignment:
        tag = tags[source]
        moved.append(f"I-{tag[2:]}" if source == last and tag != "O" else tag)
        last = source
    return moved
