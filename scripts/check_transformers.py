#!/usr/bin/env python3
"""Models to and from the public transformers library, without any conversion: the same numbers on both sides.

    pip install torch transformers safetensors
    cargo build --release        or FERROMIND names a binary that is built already
    python scripts/check_transformers.py RUN_DIR...     what `pretrain` wrote
    python scripts/check_transformers.py --made          a small random model of each family that transformers has

A run: the tokenizer loads and round-trips a text, and transformers loads the weights with no key missing or left over. Every model: it
is saved by transformers whole, in many files, and in bfloat16; read by ours and exported again, in other files; and loaded by
transformers. At each of these steps loss, logits (relative L2 up to 1e-5), the greedy continuation and, where the weights are as they
were, every gradient are written as a golden case, which `ferromind lab golden` compares by name. Exit status 1 where anything differs.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("FERROMIND", ROOT / "target" / "release" / "ferromind")
ROWS, TOKENS, PROMPT, CONTINUED = 2, 48, 8, 24
SMALL = {"vocab_size": 120, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 80, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MADE = {
    "llama": {"head_dim": 16, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "qwen3_moe": {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True},
    "mixtral": {"head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {"num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
                    "v_head_dim": 10, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 4,
                    "topk_group": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1, "norm_topk_prob": True},
}


def load(directory: pathlib.Path, dtype=torch.float32):
    """The model of a directory; stops where a key is missing or left over."""
    model, report = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            raise SystemExit(f"{directory}: transformers reports {kind}: {report[kind]}")
    return model.eval()


def write_golden(model, case: pathlib.Path) -> bool:
    """Writes what transformers computes with `model` into a case; returns whether its gradients carry the names of the files."""
    ids = torch.randint(3, model.config.vocab_size, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    model.zero_grad(set_to_none=True)
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
    config = json.loads((case / "config.json").read_text())
    if "router_aux_loss_coef" in config:
        config["router_aux_loss_coef"] = 0.0  # the library's loss leaves the auxiliary one out unless it is asked for
        (case / "config.json").write_text(json.dumps(config))
    return not any(".experts." in name and not name.endswith("_proj.weight") for name in gradients)


def compare(what: str, model, case: pathlib.Path) -> bool:
    """Whether our engine computes with the weights of `case` what transformers computes with `model`."""
    with_gradients = write_golden(model, case)
    result = subprocess.run([BINARY, "lab", "golden", case, "--json"], capture_output=True, text=True, check=False)
    if not result.stdout:
        print(f"{what}: FAIL: {result.stderr.strip()}")
        return False
    found = json.loads(result.stdout.splitlines()[-1])["cases"][0]
    if found["error"]:
        print(f"{what}: FAIL: {found['error']}")
        return False
    compared = [c for c in found["comparisons"] if with_gradients or not c["name"].startswith("grad.")]
    for c in compared:
        if not c["pass"]:
            print(f"{what}: FAIL: {c['name']}: {c['measure']} {c['error']} of {c['bound']}")
    logits = next(c["error"] for c in compared if c["name"] == "logits")
    gradients = [c["error"] for c in compared if c["name"].startswith("grad.")]
    worst = f", {len(gradients)} gradients {max(gradients):.1e}" if gradients else ""
    good = all(c["pass"] for c in compared)
    print(f"{what}: logits {logits:.1e}{worst}: {'ok' if good else 'FAIL'}")
    return good


def export(model: pathlib.Path, out: pathlib.Path, *flags: str):
    subprocess.run([BINARY, "export", "--model", model, "--out", out, *flags], check=True)


def round_trip(name: str, model, directory: pathlib.Path) -> bool:
    """Saved by transformers, read and exported by ours, loaded by transformers."""
    whole, many, half = (directory / form for form in ("whole", "many", "half"))
    model.save_pretrained(whole)
    model.save_pretrained(many, max_shard_size="20KB")
    if not (many / "model.safetensors.index.json").exists():
        raise SystemExit(f"{name}: transformers wrote one file where several were asked for")
    good = [compare(f"{name}, saved by transformers", model, whole), compare(f"{name}, saved in files of 20 KB", model, many)]
    load(whole, torch.bfloat16).save_pretrained(half)
    rounded = load(half)
    good.append(compare(f"{name}, saved in bfloat16", rounded, half))
    for what, source, same, flags in (
        ("exported", whole, model, []),
        ("exported in files of 30 KB", many, model, ["--max-shard-size", "30KB"]),
        ("exported in bfloat16", whole, rounded, ["--dtype", "bfloat16", "--max-shard-size", "15KB"]),
    ):
        out = directory / what.replace(" ", "-")
        export(source, out, *flags)
        good.append(compare(f"{name}, {what}", load(out), out))
        # Our engine read what it wrote; transformers read it too, and must have the numbers of the model that it came from.
        ids = torch.arange(3, 43).reshape(1, -1)
        with torch.no_grad():
            a, b = load(out)(ids).logits, same(ids).logits
        distance = float((a - b).norm() / b.norm())
        good.append(distance <= 1e-5)
        if not good[-1]:
            print(f"{name}, {what}: FAIL: transformers' own logits are {distance:.1e} from those of the model")
    return all(good)


def check(run: pathlib.Path, directory: pathlib.Path) -> bool:
    text = "Once upon a time, there was a fox."
    tokenizer = AutoTokenizer.from_pretrained(run)
    if tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) != text:
        print(f"{run}: the tokenizer does not give the text back")
        return False
    model, case = load(run), directory / "run"
    case.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copy(run / file, case)
    return compare(f"{run}", model, case) and round_trip(str(run), model, directory)


def make(family: str):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SMALL | MADE[family])), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms that are all 1 would hide a mistake
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(3.0)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.1 * torch.randn_like(buffer))
    return model


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for i, argument in enumerate(sys.argv[1:]):
            directory = pathlib.Path(temporary) / str(i)
            if argument == "--made":
                results += [round_trip(family, make(family), directory / family) for family in MADE]
            else:
                results.append(check(pathlib.Path(argument), directory))
    sys.exit(0 if all(results) else 1)
