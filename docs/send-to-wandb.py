"""Sends the records of a run to Weights & Biases.

    pip install wandb
    python docs/send-to-wandb.py runs/first --project gateloop            # what is there
    python docs/send-to-wandb.py runs/first --project gateloop --follow   # and what comes, until the last step

Quantities keep the names they have in metrics.jsonl; histograms of gates become wandb histograms over the logarithm to
base 2 of the memory in tokens. Started again, also after the training was resumed, it goes on where it was: the id of
the wandb run follows from the first record, and steps that were sent are not sent twice. WANDB_MODE=offline works, too.
Needs Python 3.11 or newer.
"""

import argparse
import hashlib
import json
import pathlib
import time
import tomllib

import wandb

BINS_PER_DOUBLING = 2


def records(path, follow, is_last):
    """Each record as a dictionary. Waits for more, if asked to, until the last step was recorded.

    A resumed training replaces the file or begins it anew: then it is read from its beginning.
    """
    last_step, inode, done = None, None, 0
    while True:
        stat = path.stat() if path.exists() else None
        found = stat and stat.st_ino
        if found != inode or (stat and stat.st_size < done):
            inode, done = found, 0
        if inode is not None:
            with path.open("rb") as file:
                file.seek(done)
                for line in file:
                    # A line without its end is still being written.
                    if not line.endswith(b"\n"):
                        break
                    done += len(line)
                    if line.strip():
                        record = json.loads(line)
                        last_step = record["step"]
                        yield record
        if not follow or (last_step is not None and is_last(last_step)):
            return
        time.sleep(2)


def id_of(record):
    """The same for every part of a run: its first record holds the time that it took to get there."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def loggable(record):
    """Without nulls, which stand for what is not finite, and with histograms."""
    values = {}
    for key, value in record.items():
        if isinstance(value, list):
            edges = [bin / BINS_PER_DOUBLING for bin in range(len(value) + 1)]
            values[key] = wandb.Histogram(np_histogram=(value, edges))
        elif value is not None and key != "step":
            values[key] = value
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path, help="the run folder")
    parser.add_argument("--project", default="gateloop")
    parser.add_argument("--name", help="of the wandb run [default: the folder's]")
    parser.add_argument("--follow", action="store_true", help="wait for records until the last step")
    options = parser.parse_args()

    if not (options.run / "config.toml").is_file():
        parser.error(f"{options.run} is no run folder: it has no config.toml")
    with (options.run / "config.toml").open("rb") as file:
        config = tomllib.load(file)
    steps = config["train"]["steps"]
    sent, run, next_step = 0, None, 0
    for record in records(options.run / "metrics.jsonl", options.follow, lambda step: step >= steps):
        if run is None:
            run = wandb.init(
                project=options.project,
                name=options.name or options.run.resolve().name,
                id=id_of(record),
                resume="allow",
                config=config,
            )
            # A run that goes on counts from the step after its last.
            next_step = run.step
        if record["step"] < next_step:
            continue
        run.log(loggable(record), step=record["step"])
        next_step = record["step"] + 1
        sent += 1
    if run is None:
        parser.exit(1, f"{options.run}/metrics.jsonl has no record yet; --follow waits for one\n")
    run.finish()
    print(f"{sent} records sent")


if __name__ == "__main__":
    main()
