#!/usr/bin/env python3
"""Reads a run directory with the public TensorBoard and compares each scalar with metrics.jsonl.

Usage: check_tensorboard.py RUN_DIR     (needs: pip install tensorboard)
"""

import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {
    "train/loss": "loss",
    "train/aux_loss": "aux_loss",
    "val/loss": "val_loss",
    "train/lr": "lr",
    "train/grad_norm": "grad_norm",
    "train/tok_s": "tok_s",
    "train/mfu": "mfu",
}


def as_float32(value):
    """What is left of a number in an event file; null in metrics.jsonl stands for one that is not finite."""
    return math.nan if value is None else struct.unpack("f", struct.pack("f", value))[0]


def same(a, b):
    return a == b or not (math.isfinite(a) or math.isfinite(b))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = Path(sys.argv[1])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()

    expected = {tag: [(r["step"], as_float32(r[key])) for r in records if key in r] for tag, key in TAGS.items()}
    for record in records:
        for layer, load in enumerate(record.get("expert_load", [])):
            peak = as_float32(max(load) * len(load))
            expected.setdefault(f"expert_load/layer_{layer}_max", []).append((record["step"], peak))
    expected = {tag: points for tag, points in expected.items() if points}

    failed = set(expected) ^ set(events.Tags()["scalars"])
    for tag, points in sorted(expected.items()):
        found = [(event.step, event.value) for event in events.Scalars(tag)] if tag not in failed else []
        good = [f[0] for f in found] == [p[0] for p in points] and all(same(f[1], p[1]) for f, p in zip(found, points))
        if not good:
            failed.add(tag)
        print(f"{'ok' if good else 'DIFFERS':8}{tag:32}{len(found)} of {len(points)} points")
    if failed or not expected:
        sys.exit(f"not the same in both: {', '.join(sorted(failed)) or 'no scalar at all'}")


if __name__ == "__main__":
    main()
