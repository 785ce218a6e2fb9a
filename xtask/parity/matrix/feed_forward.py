"""The feed-forward layer."""

from matrix.case import FIXTURE, FULL, Case, Draw, Subject, name


def feed_forward(length, batch, dim, mult, tier=FULL):
    subject = Subject("pytorch", "layer", {"dim": dim, "mult": mult}, module="feed_forward")
    slug = name(f"torch-feed-forward-dim{dim}-mult{mult}", length, batch)
    return Case(slug, subject, length, batch, Draw(), tier=tier)


def cases():
    yield feed_forward(128, 3, dim=32, mult=4)
    yield feed_forward(17, 1, dim=8, mult=2, tier=FIXTURE)
