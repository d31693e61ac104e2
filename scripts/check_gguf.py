#!/usr/bin/env python3
"""Reads a GGUF file with the public `gguf` package and compares it with the model directory that it was written from.

    pip install gguf safetensors torch            with --logits also transformers accelerate
    python scripts/check_gguf.py MODEL_DIR FILE.gguf [--logits]

Every tensor is dequantised by the package and compared with the one of the directory; every token with tokenizer.json. With --logits,
the transformers library loads both (it reads GGUF itself) and the two models' logits are compared. Exit status 1 where anything differs.
"""
import argparse
import json
import pathlib
import re
import sys

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from safetensors.torch import load_file

NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
# The relative L2 distance that rounding to each type may make.
BOUNDS = {GGMLQuantizationType.F32: 0.0, GGMLQuantizationType.F16: 1e-3, GGMLQuantizationType.Q8_0: 1e-2}


def public_name(name: str) -> str:
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{found[1]}.{NAMES[found[2]]}.weight"
    return f"{NAMES[name.removesuffix('.weight')]}.weight"


def weights(directory: pathlib.Path) -> dict[str, np.ndarray]:
    files = sorted(directory.glob("model*.safetensors"))
    return {name: value.float().numpy() for file in files for name, value in load_file(file).items()}


def field(reader: GGUFReader, name: str):
    return reader.fields[name].contents()


def check_tensors(reader: GGUFReader, directory: pathlib.Path) -> bool:
    expected, good = weights(directory), True
    if json.loads((directory / "config.json").read_text()).get("tie_word_embeddings"):
        expected.pop("lm_head.weight", None)
    architecture = field(reader, "general.architecture")
    heads = {x: field(reader, f"{architecture}.attention.{key}") for x, key in (("q", "head_count"), ("k", "head_count_kv"))}
    worst = 0.0
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = dequantize(tensor.data, tensor.tensor_type).reshape([int(x) for x in reversed(tensor.shape)])
        name = public_name(tensor.name)
        if architecture == "llama" and (found := re.search(r"\.(q|k)_proj\.", name)):
            rows, cols = values.shape
            values = values.reshape(heads[found[1]], rows // heads[found[1]] // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)
        target = expected.pop(name, None)
        if target is None or target.shape != values.shape:
            print(f"FAIL {tensor.name}: {values.shape}, the directory has {None if target is None else target.shape}")
            good = False
            continue
        distance = float(np.linalg.norm(values - target) / max(np.linalg.norm(target), 1e-30))
        worst = max(worst, distance)
        if distance > BOUNDS[tensor.tensor_type]:
            print(f"FAIL {tensor.name}: {tensor.tensor_type.name}, relative L2 {distance:.2e}")
            good = False
    for name in expected:
        print(f"FAIL {name} is not in the file")
    kinds = {tensor.tensor_type.name for tensor in reader.tensors}
    print(f"{len(reader.tensors)} tensors of {', '.join(sorted(kinds))}, the worst relative L2 {worst:.1e}")
    return good and not expected


def check_tokenizer(reader: GGUFReader, directory: pathlib.Path) -> bool:
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = field(reader, "tokenizer.ggml.tokens")
    wrong = [token for token, id in ids.items() if tokens[id] != token]
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in tokenizer["model"]["merges"]]
    good = not wrong and list(field(reader, "tokenizer.ggml.merges") or []) == merges
    print(f"{len(tokens)} tokens, {len(merges)} merges: {'ok' if good else 'FAIL'}")
    return good


def check_logits(path: pathlib.Path, directory: pathlib.Path, bound: float) -> bool:
    from transformers import AutoModelForCausalLM

    ours = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.randint(3, theirs.config.vocab_size, (2, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = ours(ids).logits, theirs(ids).logits
    distance = float((a - b).norm() / b.norm())
    print(f"logits through transformers: relative L2 {distance:.1e} of {bound}: {'ok' if distance <= bound else 'FAIL'}")
    return distance <= bound


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("--logits", action="store_true")
    flags = parser.parse_args()
    reader = GGUFReader(flags.gguf)
    checks = [check_tensors(reader, flags.model), check_tokenizer(reader, flags.model)]
    if flags.logits:
        coarsest = max((BOUNDS[tensor.tensor_type] for tensor in reader.tensors), default=0.0)
        checks.append(check_logits(flags.gguf, flags.model, max(1e-5, 5 * coarsest)))
    sys.exit(0 if all(checks) else 1)
