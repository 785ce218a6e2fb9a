"""SimpleGateLoopLayer: its options, the engines that compute its scan, a state handed in, and exact zeros."""

from dataclasses import replace
from itertools import product

from matrix.case import FIXTURE, FULL, QUICK, Case, Draw, Subject, name

ENGINES = ("auto", "naive", "tree", "chunked", "heinsen", "heinsen_as_reference")


def simple(
    slug, length, batch, engine="auto", dim=12, cached=False, draw=None, tier=FULL, prenorm=True, post_ln=False,
    reverse=False,
):
    options = {"dim": dim, "prenorm": prenorm, "post_ln": post_ln, "reverse": reverse, "engine": engine}
    subject = Subject("pytorch", "layer", options, module="simple_gate_loop")
    slug = name(f"torch-simple-{slug}", length, batch)
    return Case(slug, subject, length, batch, draw or Draw.for_length(length), cached=cached, tier=tier)


def cases():
    yield from combinations()
    yield from engines()
    yield from caches()
    yield from zeros()
    yield from fixtures()


def combinations():
    for prenorm, post_ln, reverse in product((False, True), repeat=3):
        slugs = ["no-prenorm" * (not prenorm), "post-ln" * post_ln, "reverse" * reverse]
        slug = "-".join(filter(None, slugs)) or "prenorm"
        yield simple(slug, 17, 3, prenorm=prenorm, post_ln=post_ln, reverse=reverse)


def engines():
    for engine in ENGINES:
        for length, batch in [(1, 1), (17, 3), (128, 3), (1000, 1)]:
            yield simple(dashed(engine), length, batch, engine, tier=QUICK if length == 128 else FULL)
    yield simple("auto", 2, 1)
    yield simple("heinsen", 2, 3, "heinsen")
    for engine in ("chunked", "heinsen", "heinsen_as_reference"):
        yield simple(f"{dashed(engine)}-post-ln-reverse", 128, 1, engine, post_ln=True, reverse=True)


def caches():
    for length, batch in [(1, 3), (17, 1), (128, 3)]:
        for engine in ("auto", "naive", "heinsen", "heinsen_as_reference"):
            yield simple(f"{dashed(engine)}-cache", length, batch, engine, cached=True)
    yield simple("tree-cache-no-prenorm", 17, 3, "tree", cached=True, prenorm=False)
    yield simple("chunked-cache-post-ln", 128, 1, "chunked", cached=True, post_ln=True)


def zeros():
    """Inputs of the scan that are exactly zero, of which the Heinsen form takes the logarithm."""
    for length, batch in [(17, 1), (128, 3)]:
        everywhere = replace(Draw.for_length(length), zero_steps=(0, 1, 5, length - 1), zero_channels=2)
        for engine in ("auto", "chunked", "heinsen"):
            yield simple(f"{dashed(engine)}-zeros", length, batch, engine, draw=everywhere, prenorm=False)
        # The reference's gradient is NaN where a sequence begins with zeros.
        later = replace(everywhere, zero_steps=(3, 4, length - 1), zero_channels=0)
        yield simple(
            "heinsen-as-reference-zeros", length, batch, "heinsen_as_reference", draw=later, prenorm=False
        )


def fixtures():
    small = {"dim": 8, "tier": FIXTURE}
    zeros = Draw(zero_steps=(0, 1, 5, 16), zero_channels=2)
    yield simple("prenorm-dim8", 17, 3, **small)
    yield simple(
        "naive-no-prenorm-post-ln-reverse-dim8", 17, 1, "naive", prenorm=False, post_ln=True, reverse=True, **small
    )
    yield simple("tree-cache-dim8", 17, 3, "tree", cached=True, **small)
    yield simple("chunked-dim8", 17, 1, "chunked", **small)
    yield simple("heinsen-zeros-dim8", 17, 1, "heinsen", prenorm=False, draw=zeros, **small)
    later = Draw(zero_steps=(3, 4, 16))
    yield simple(
        "heinsen-as-reference-zeros-dim8", 17, 1, "heinsen_as_reference", prenorm=False, draw=later, **small
    )
    yield simple("heinsen-as-reference-cache-dim8", 17, 1, "heinsen_as_reference", cached=True, **small)


def dashed(engine):
    return engine.replace("_", "-")
