#!/usr/bin/env python3
"""Loads run directories in the public transformers library, without any conversion, and compares its numbers with ours.

    pip install torch transformers safetensors
    cargo build --release
    python scripts/check_transformers.py RUN_DIR...

For each run: the tokenizer loads and round-trips a text; the model class loads the weights with no key missing or left over;
loss, logits and the greedy continuation (and, for dense models, every gradient) are written as a golden case, which
`ferromind lab golden` then compares by name. Exit status 1 where anything differs.
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target" / "release" / "ferromind"
ROWS, TOKENS, PROMPT, CONTINUED = 2, 48, 8, 24


def golden_case(run: pathlib.Path, case: pathlib.Path) -> bool:
    """Writes what transformers computes for `run` as a golden case; returns whether its gradients carry our names."""
    model, report = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise SystemExit(f"{run}: transformers reports {kind}: {report[kind]}")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (ROWS, TOKENS), generator=generator)
    out = model(ids, labels=ids)
    out.loss.backward()
    with torch.no_grad():
        tokens = ids[:1, :PROMPT]
        for _ in range(CONTINUED):
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    tensors = {"input_ids": ids.int(), "labels": ids.int(), "logits": out.logits.detach(), "loss": out.loss.detach().reshape(1)}
    tensors["greedy"] = tokens.int()
    gradients = {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    save_file({k: v.contiguous().clone() for k, v in (tensors | gradients).items()}, case / "golden.safetensors")
    config = json.loads((run / "config.json").read_text())
    fused = any(".experts." in name and not name.endswith("_proj.weight") for name in gradients)
    if "router_aux_loss_coef" in config:
        config["router_aux_loss_coef"] = 0.0  # the library's loss leaves the auxiliary one out unless it is asked for
    (case / "config.json").write_text(json.dumps(config))
    shutil.copy(run / "model.safetensors", case)
    return not fused


def check(run: pathlib.Path) -> bool:
    text = "Once upon a time, there was a fox."
    tokenizer = AutoTokenizer.from_pretrained(run)
    if tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) != text:
        print(f"{run}: the tokenizer does not give the text back")
        return False
    with tempfile.TemporaryDirectory() as directory:
        case = pathlib.Path(directory)
        with_gradients = golden_case(run, case)
        result = subprocess.run([BINARY, "lab", "golden", case, "--json"], capture_output=True, text=True, check=False)
        found = json.loads(result.stdout.splitlines()[-1])["cases"][0]
    if found["error"]:
        print(f"{run}: {found['error']}")
        return False
    compared = [c for c in found["comparisons"] if with_gradients or not c["name"].startswith("grad.")]
    for c in compared:
        if not c["pass"] or not c["name"].startswith("grad."):
            print(f"{run}: {c['name']}: {c['measure']} {c['error']} of {c['bound']}: {'ok' if c['pass'] else 'FAIL'}")
    gradients = [c for c in compared if c["name"].startswith("grad.")]
    if gradients:
        print(f"{run}: {len(gradients)} gradients, the worst {max(c['error'] for c in gradients):.1e}")
    return all(c["pass"] for c in compared)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    sys.exit(0 if all([check(pathlib.Path(run)) for run in sys.argv[1:]]) else 1)
