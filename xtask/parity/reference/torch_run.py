"""Runs the PyTorch reference on the weights and inputs of a case."""

import torch

from problem import Problem
from reference import torch_layers, torch_models
from reference.placing import demand_same_layout


def initial_weights(subject, seed):
    torch.manual_seed(seed)
    return values_of(build(subject, double=False))


def run(subject, weights, inputs, double):
    module = place(subject, weights, double)
    dtype = torch.float64 if double else torch.float32
    inputs = {name: as_tensor(x, dtype) for name, x in inputs.items()}
    if subject.kind == "model":
        return run_model(module, subject.call, inputs["windows"])
    return run_layer(module, subject, **inputs)


def output(subject, weights, inputs):
    module = place(subject, weights, double=False)
    inputs = {name: as_tensor(x, torch.float32) for name, x in inputs.items()}
    with torch.no_grad():
        if subject.kind == "model":
            return module(inputs["windows"][:, :-1], **subject.call).numpy()
        return call_layer(module, subject, inputs["x"], inputs.get("cache"))[0].numpy()


def next_logits(subject, weights, longest):
    del longest
    model = place(subject, weights, double=False)

    @torch.no_grad()
    def last(ids):
        return model(torch.from_numpy(ids), **subject.call)[0, -1].numpy()

    return last


def run_model(model, call, windows):
    with torch.no_grad():
        logits = model(windows[:, :-1], **call)
    loss = model(windows, return_loss=True, **call)
    loss.backward()
    return {"logits": logits.numpy(), "loss": loss.detach().numpy()} | gradients(model)


def run_layer(layer, subject, x, dy, cache=None):
    x.requires_grad_()
    y, last = call_layer(layer, subject, x, cache)
    (y * dy).sum().backward()
    found = {"y": y.detach().numpy(), "dx": x.grad.numpy()} | gradients(layer)
    if last is not None:
        found["cache"] = last.detach().reshape(x.shape[0], -1).numpy()
    return found


def call_layer(layer, subject, x, cache):
    """The output, and the last state of a layer that can hand one over."""
    if subject.module != "simple_gate_loop":
        return layer(x, **subject.call), None
    if cache is not None:
        # Only the state matters: products of transitions before it cancel.
        state = cache.reshape(-1, 1)
        cache = (torch.ones_like(state), state)
    if layer.reverse:
        return layer(x, cache=cache), None
    y, (_, last) = layer(x, cache=cache, return_cache=True)
    return y, last


def build(subject, double):
    if subject.kind == "model":
        return torch_models.build(subject.options)
    return torch_layers.build(subject.module, subject.options, double)


def place(subject, weights, double):
    module = build(subject, double)
    demand_same_layout(values_of(module), weights)
    tensors = {name: torch.from_numpy(x) for name, x in weights.items()}
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise Problem(f"load_state_dict: {error}") from error
    return module.double() if double else module


def values_of(module):
    return {name: x.detach().numpy() for name, x in module.state_dict().items()}


def gradients(module):
    """Of what takes part: the reference leaves `.grad` of the rest at None."""
    return {
        f"grad.{name}": p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None
    }


def as_tensor(x, dtype):
    tensor = torch.from_numpy(x)
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor
