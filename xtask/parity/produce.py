"""All that the file of one case holds, from the reference itself."""

import draws
import reference
from case_file import prefixed
from errors import demand_finite, relative_errors, typical_errors
from greedy import continue_greedily
from problem import Problem

PROMPT = 8
# Runs in single precision, each compared with one in double precision. The rounding error of a single one is
# drawn by lot: on another processor it may well be two thirds of what it is on this one.
RUNS = 4


def produce(case):
    """The metadata and the tensors of a case."""
    try:
        return produce_or_fail(case)
    except Problem as problem:
        raise Problem(f"{case.name}: {problem}") from problem


def produce_or_fail(case):
    framework = reference.of(case.subject.framework)
    weights = draws.weights(case, framework.initial_weights(case.subject, case.seed))
    inputs = draws.inputs(case)
    exact = framework.run(case.subject, weights, inputs, double=True)
    demand_finite(exact)
    rounded = framework.run(case.subject, weights, inputs, double=False)
    once = relative_errors(rounded, exact)
    tensors = prefixed("param", weights) | prefixed("input", inputs) | prefixed("expect", exact)
    if case.greedy:
        tensors |= prefixed("greedy", greedy(case, framework, weights).tensors())
    errors = {"reference": typical_errors([once, *neighbours(case, framework, weights, inputs)]), "once": once}
    return case.metadata() | errors, tensors


def neighbours(case, framework, weights, inputs):
    """The errors of runs with weights an ulp off."""
    for index in range(1, RUNS):
        near = draws.neighbour(case, weights, index)
        exact, rounded = (framework.run(case.subject, near, inputs, double=double) for double in (True, False))
        yield relative_errors(rounded, exact)


def greedy(case, framework, weights):
    prompt = draws.prompt(case, PROMPT)
    next_logits = framework.next_logits(case.subject, weights, longest=PROMPT + case.greedy)
    return continue_greedily(next_logits, prompt, case.greedy)
