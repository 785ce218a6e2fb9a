"""The scaling model of docs/distributed.md: predictions from stated constants, nothing measured here.

    python docs/scaling.py                              # prints the tables
    python docs/scaling.py --svg docs/scaling.svg       # and draws the efficiency of data-parallel training
    python docs/scaling.py --check docs/distributed.md  # and fails if a table there is not what is computed here

Needs Python 3.9 or newer and nothing else.
"""

import argparse
import math
import pathlib
import sys

# NVIDIA's H100 data sheet: 1,979 TFLOP/s in bf16 with sparsity, half of it without; NVLink 900 GB/s, both directions.
PEAK = 989e12
NVLINK = 450e9
# One 400 Gb/s adapter a GPU, eight GPUs a node (NVIDIA's DGX H100 data sheet).
NETWORK = 50e9
NODE = 8
# Assumptions: the share of the peak that training reaches, and what a step of a ring and a level of a tree wait.
MFU = 0.40
NVLINK_STEP = 5e-6
NETWORK_STEP = 15e-6
# dist.bucket_mb, and the bytes of a gradient.
BUCKET = 32 * 2**20
BYTES = 4
# What the summary of a slice reads, in f32, of a token and channel: z, k and v forward; z, q and dy backward.
SUMMARY_BYTES = 16 + 16
# The rate of the fused f32 operator on an H100: 97 % of a copy's 3,015 GB/s (docs/kernels.md).
SUMMARY_RATE = 0.97 * 3015e9
# Tokens a second of the small model on one H100 (docs/kernels.md: 1.39 to 1.52 million).
MEASURED_RATE = 1.45e6

VOCABULARY = 256
# name, dim, depth, tokens a rank and step
SIZES = [("small", 512, 6, 32 * 1024), ("medium", 1024, 8, 32 * 1024), ("large", 2048, 21, 16 * 1024)]
RANKS = [2**n for n in range(11)]
SEQUENCE_RANKS = [2**n for n in range(7)]
LONG = 2**20


def parameters(dim, depth):
    """Of a model with one head a channel: 15 D^2 + 9 D a layer."""
    mixer = 3 * dim**2 + (2 * dim**2 + 2 * dim) + dim**2 + dim**2  # to_qkv, to_a, to_gates, to_out
    feed_forward = 2 * 4 * dim**2 + 4 * dim + dim
    norms = 2 * dim
    return depth * (mixer + feed_forward + norms) + 2 * VOCABULARY * dim + dim


def compute(count, tokens):
    """Seconds: 6 floating-point operations a parameter and token, a third of them forward."""
    return 6 * count * tokens / (PEAK * MFU)


def levels(nodes):
    return math.ceil(math.log2(nodes))


def all_reduce(size, ranks):
    """Seconds for `size` bytes: a ring in the node, and each GPU's part over its adapter to its peers elsewhere."""
    local = min(ranks, NODE)
    nodes = ranks // local
    inside = 2 * (local - 1) / local * size / NVLINK + 2 * (local - 1) * NVLINK_STEP
    between = 2 * (nodes - 1) / nodes * size / local / NETWORK + 2 * levels(nodes) * NETWORK_STEP
    return inside + between


def all_gather(size, ranks):
    """Seconds for `size` bytes of each rank."""
    local = min(ranks, NODE)
    nodes = ranks // local
    between = (nodes - 1) * size / NETWORK + levels(nodes) * NETWORK_STEP
    inside = (local - 1) * nodes * size / NVLINK + (local - 1) * NVLINK_STEP
    return between + inside


def gradients(count, ranks, bucket=BUCKET):
    """Seconds to sum the gradients, bucket after bucket, and those of one bucket."""
    size = BYTES * count
    buckets = math.ceil(size / bucket)
    one = all_reduce(size / buckets, ranks)
    return buckets * one, one


def efficiencies(work, communication, last):
    """Without overlap, and with as much as the backward pass can hide: not the last bucket, which it ends with."""
    exposed = max(communication - work * 2 / 3, last)
    return work / (work + communication), work / (work + exposed)


def summary_share(count, dim, depth):
    """What the summaries of slices cost, as a share of the compute."""
    return SUMMARY_BYTES * dim * depth / SUMMARY_RATE / compute(count, 1)


def percent(x):
    return f"{100 * x:.1f} %"


def milliseconds(x):
    return f"{1000 * x:.2f}" if x < 0.01 else f"{1000 * x:.1f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def sizes_table():
    rows = []
    for name, dim, depth, tokens in SIZES:
        count = parameters(dim, depth)
        rows.append((name, dim, depth, f"{count:,}", f"{tokens:,}", milliseconds(compute(count, tokens)),
                     f"{BYTES * count / 1e6:,.0f} MB", math.ceil(BYTES * count / BUCKET)))
    head = ("size", "dim", "depth", "parameters", "tokens a rank", "ms compute", "gradient", "buckets")
    return table(head, rows)


def data_table(name, dim, depth, tokens):
    count = parameters(dim, depth)
    work = compute(count, tokens)
    measured = name == "small"
    rows = []
    for ranks in RANKS:
        communication, last = gradients(count, ranks)
        plain, overlapped = efficiencies(work, communication, last)
        row = [ranks, f"{ranks * tokens / 1e6:.2f} M", milliseconds(work), milliseconds(communication),
               percent(plain), percent(overlapped)]
        if measured:
            row.append(percent(efficiencies(tokens / MEASURED_RATE, communication, last)[0]))
        rows.append(row)
    head = ["N", "tokens a step", "ms compute", "ms communication", "without overlap", "with overlap"]
    return table(head + ["without, at the measured speed"] * measured, rows)


def batch_table():
    """Where compute is nine times the communication."""
    rows = []
    for name, dim, depth, _ in SIZES:
        count = parameters(dim, depth)
        needed = [9 * gradients(count, ranks)[0] / compute(count, 1) for ranks in (8, 64, 1024)]
        rows.append((name, *(f"{math.ceil(n / 100) * 100:,}" for n in needed)))
    return table(("tokens a rank for 90 % without overlap", "N = 8", "N = 64", "N = 1024"), rows)


def bucket_table():
    name, dim, depth, tokens = SIZES[-1]
    count = parameters(dim, depth)
    work = compute(count, tokens)
    rows = []
    for mb in (8, 32, 128, 512):
        cells = [f"{mb}"]
        for ranks in (64, 1024):
            communication, last = gradients(count, ranks, mb * 2**20)
            cells += [milliseconds(communication), percent(efficiencies(work, communication, last)[0])]
        rows.append(cells)
    head = (f"`bucket_mb`, {name}", "ms, N = 64", "efficiency", "ms, N = 1024", "efficiency")
    return table(head, rows)


def sequence_table():
    rows = []
    for ranks in SEQUENCE_RANKS:
        row = [ranks, f"{LONG // ranks:,}"]
        for _, dim, depth, _ in SIZES:
            count = parameters(dim, depth)
            work = compute(count, LONG) / ranks
            extra = work * summary_share(count, dim, depth) if ranks > 1 else 0
            # Products of the decays and states forward, states backward, complex numbers in f32.
            gathers = depth * (all_gather(16 * dim, ranks) + all_gather(8 * dim, ranks))
            total = work + extra + gathers + gradients(count, ranks)[0]
            row += [milliseconds(total), milliseconds(gathers), percent(work / total)]
        rows.append(row)
    head = ["S", "tokens a rank"]
    for name, *_ in SIZES:
        head += [f"{name}: ms a step", "of it gathers", "efficiency"]
    return table(head, rows)


def summary_table():
    rows = [(name, percent(summary_share(parameters(dim, depth), dim, depth))) for name, dim, depth, _ in SIZES]
    return table(("size", "extra pass, share of the compute"), rows)


def ring_table():
    """Bytes that a rank receives in a layer forward, one sequence."""
    ranks, dim = 64, 1024
    rows = []
    for tokens in (2**14, 2**17, 2**20):
        ring = 2 * 2 * dim * tokens / ranks * (ranks - 1)
        rows.append((f"{tokens:,}", f"{ring / 1e6:,.1f} MB", f"{16 * dim * (ranks - 1) / 1e6:.1f} MB"))
    return table(("T", "ring attention, keys and values in bf16", "gate loop, max heads, f32"), rows)


def tables():
    return [sizes_table(), *(data_table(*size) for size in SIZES), batch_table(), bucket_table(), summary_table(),
            sequence_table(), ring_table()]


INK, PALE = "#3C3C3C", "#E2E2E2"
COLOURS = ["#0072B2", "#D55E00", "#009E73"]
LEFT, RIGHT, TOP, BOTTOM = 78, 660, 56, 372
LOWEST = 0.70


def drawing():
    def x(ranks):
        return LEFT + math.log2(ranks) / math.log2(RANKS[-1]) * (RIGHT - LEFT)

    def y(efficiency):
        return BOTTOM - (efficiency - LOWEST) / (1 - LOWEST) * (BOTTOM - TOP)

    def text(x, y, words, anchor="start", size=13, more=""):
        return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="sans-serif" font-size="{size}" '
                f'fill="{INK}"{more}>{words}</text>')

    def line(x1, y1, x2, y2, colour, width, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
                f'stroke-width="{width}"{dash}/>')

    out = ['<svg width="900" height="440" viewBox="0 0 900 440" xmlns="http://www.w3.org/2000/svg">',
           '<rect width="900" height="440" fill="#FFFFFF"/>',
           text(24, 30, "efficiency of data-parallel training, predicted (H100 nodes of 8, 400 Gb/s a GPU)", size=17)]
    for step in range(round(LOWEST * 100), 101, 5):
        out += [line(LEFT, y(step / 100), RIGHT, y(step / 100), PALE, 1),
                text(LEFT - 8, y(step / 100) + 4, f"{step} %", "end")]
    for ranks in RANKS:
        out += [line(x(ranks), TOP, x(ranks), BOTTOM, PALE, 1), text(x(ranks), BOTTOM + 20, ranks, "middle")]
    out += [line(LEFT, BOTTOM, RIGHT, BOTTOM, INK, 1.2), line(LEFT, TOP, LEFT, BOTTOM, INK, 1.2),
            line(x(NODE), TOP, x(NODE), BOTTOM, INK, 1, "2 3"), text(x(NODE) - 7, BOTTOM - 10, "one node", "end", 12),
            text(x(NODE) + 7, BOTTOM - 10, "several nodes", size=12),
            text((LEFT + RIGHT) / 2, BOTTOM + 46, "ranks N (one GPU each; logarithmic)", "middle", 14),
            text(22, (TOP + BOTTOM) / 2, "compute / step time", "middle", 14,
                 f' transform="rotate(-90 22 {(TOP + BOTTOM) / 2:.1f})"')]
    # Small and medium lie on each other without overlap: the one below is wider.
    for (_, dim, depth, tokens), colour, width in zip(SIZES, COLOURS, (7, 2.2, 2.2)):
        count = parameters(dim, depth)
        work = compute(count, tokens)
        both = [efficiencies(work, *gradients(count, ranks)) for ranks in RANKS]
        for which, dash, width in ((0, "", width), (1, ' stroke-dasharray="7 5"', 2.2)):
            points = " ".join(f"{x(ranks):.1f},{y(pair[which]):.1f}" for ranks, pair in zip(RANKS, both))
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" '
                       f'stroke-width="{width}"{dash}/>')
        out += [f'<circle cx="{x(ranks):.1f}" cy="{y(pair[0]):.1f}" r="3" fill="{colour}"/>'
                for ranks, pair in zip(RANKS, both)]
    top = TOP + 14
    for (name, dim, depth, tokens), colour in zip(SIZES, COLOURS):
        out += [line(684, top - 4, 714, top - 4, colour, 2.2),
                text(722, top, f"{name}: {parameters(dim, depth) / 1e6:,.0f} M"),
                text(722, top + 17, f"{tokens:,} tokens a rank", size=12)]
        top += 48
    out += [line(684, top + 6, 714, top + 6, INK, 2.2), text(722, top + 10, "without overlap"),
            text(722, top + 27, "(as it is built)", size=12),
            line(684, top + 52, 714, top + 52, INK, 2.2, "7 5"), text(722, top + 56, "with full overlap"),
            text(722, top + 73, "(an upper bound)", size=12), "</svg>"]
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", type=pathlib.Path, help="where to draw")
    parser.add_argument("--check", type=pathlib.Path, help="a document that must have every table")
    args = parser.parse_args()
    print("\n\n".join(tables()))
    if args.svg:
        args.svg.write_text(drawing())
    if args.check:
        document = args.check.read_text()
        stale = [t.splitlines()[0] for t in tables() if t not in document]
        if stale:
            sys.exit(f"not in {args.check}:\n" + "\n".join(stale))


if __name__ == "__main__":
    main()
