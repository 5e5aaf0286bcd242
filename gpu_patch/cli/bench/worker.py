"""The process that measures.

It takes its settings as a JSON object on the command line and prints one JSON object per line: what
it runs on, then a row per workload.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from gpu_patch.cli.bench import by_chunk, cpu, cuda, upstream


def main() -> None:
    """Measure what the settings on the command line ask for."""
    # only results go to the real stdout; what libraries print there goes to stderr
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(record: Any) -> None:
        try:
            print(json.dumps(record), file=results, flush=True)
        except BrokenPipeError:  # who asked has left
            os._exit(1)

    settings = json.loads(sys.argv[1])
    if settings.get("library") == "careamics":
        upstream.serve(report, settings["budget"])
    elif "by_chunk" in settings:
        by_chunk.serve(settings, report)
    elif settings["device"] == "cpu":
        cpu.serve(settings, report)
    else:
        cuda.serve(settings, report)
