"""The models of the PyTorch reference, and a stack of its simple layers."""

import torch.nn.functional as F
from gateloop_transformer import SimpleGateLoopLayer, Transformer
from gateloop_transformer.gateloop_transformer import FeedForward, PostNorm, PreNorm, RMSNorm, Sequential
from torch import nn

from problem import Problem
from reference.torch_layers import demand_rel_pos_as_reference


def build(options):
    options = dict(options)
    layers = options.pop("layers", [])
    if layers == ["simple_gate_loop"]:
        return SimpleStack(**options)
    if layers:
        raise Problem(f"no reference has the layers {layers}")
    rel_pos = options.pop("rel_pos", None)
    if options.get("data_dependent_rel_pos"):
        demand_rel_pos_as_reference(rel_pos)
    return Transformer(**{"checkpoint_gate_looped_attn": False, **options})


class SimpleStack(nn.Module):
    """The reference's Transformer with its simple layer as the mixer, which it has no option for."""

    def __init__(self, *, num_tokens, dim, depth, ff_mult=4, post_ln_norm=False):
        super().__init__()
        wrap = PostNorm if post_ln_norm else PreNorm
        self.token_emb = nn.Embedding(num_tokens, dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([
                wrap(dim, SimpleGateLoopLayer(dim, prenorm=False)),
                wrap(dim, FeedForward(dim, ff_mult)),
            ])
            for _ in range(depth)
        )
        self.to_logits = Sequential(
            None if post_ln_norm else RMSNorm(dim),
            nn.Linear(dim, num_tokens, bias=False),
        )

    def forward(self, ids, return_loss=False):
        if return_loss:
            ids, labels = ids[:, :-1], ids[:, 1:]
        x = self.token_emb(ids)
        for mixer, feed_forward in self.layers:
            x = feed_forward(mixer(x))
        logits = self.to_logits(x)
        return F.cross_entropy(logits.transpose(1, 2), labels) if return_loss else logits
