"""What TensorBoard's own package reads from a folder of event files, as a line of JSON each."""

import json
import math
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KEEP_ALL = {"scalars": 0, "histograms": 0}

events = EventAccumulator(sys.argv[1], size_guidance=KEEP_ALL)
events.Reload()
for tag in events.Tags()["scalars"]:
    for event in events.Scalars(tag):
        value = event.value if math.isfinite(event.value) else None
        print(json.dumps(["scalar", tag, event.step, event.wall_time, value]))
for tag in events.Tags()["histograms"]:
    for event in events.Histograms(tag):
        bins = event.histogram_value
        numbers = [bins.min, bins.max, bins.num, list(bins.bucket_limit), list(bins.bucket)]
        print(json.dumps(["histogram", tag, event.step, event.wall_time, numbers]))
