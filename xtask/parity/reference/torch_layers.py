"""The layers of the PyTorch reference, built from the options of a case."""

from gateloop_transformer import CausalFullAttention, GateLoopedAttention, SimpleGateLoopLayer
from gateloop_transformer.gateloop_transformer import FeedForward

from problem import Problem

# For each engine: whether the reference uses its Heinsen form in (f32, f64).
HEINSEN = {
    "auto": (False, False),
    "naive": (False, False),
    "tree": (False, False),
    "chunked": (False, False),
    "heinsen": (True, False),
    "heinsen_as_reference": (True, True),
}


def build(module, options, double):
    if module not in BUILDERS:
        raise Problem(f"no layer named {module!r}")
    return BUILDERS[module](dict(options), double)


def gate_loop(options, _double):
    return GateLoopedAttention(
        add_swish_gating=options.pop("swish_gating"),
        checkpoint_gate_looped_attn=options.pop("checkpoint"),
        **options,
    )


def attention(options, _double):
    demand_rel_pos_as_reference(options.pop("rel_pos", None))
    return CausalFullAttention(add_swish_gating=options.pop("swish_gating"), **options)


def feed_forward(options, _double):
    return FeedForward(**options)


def simple_gate_loop(options, double):
    return SimpleGateLoopLayer(use_heinsen=HEINSEN[options.pop("engine")][double], **options)


def demand_rel_pos_as_reference(rel_pos):
    """The reference multiplies its transitions along the features of a head, not along time."""
    if rel_pos != "as_reference":
        raise Problem(f"the reference cannot answer for rel_pos {rel_pos!r}")


BUILDERS = {
    "gate_loop": gate_loop,
    "attention": attention,
    "feed_forward": feed_forward,
    "simple_gate_loop": simple_gate_loop,
}
