"""One JSON object a line on standard output, each visible at once."""

import json


def print_line(fields):
    print(json.dumps(fields), flush=True)
