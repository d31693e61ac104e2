#!/usr/bin/env python3
"""Turns weights of MiniMind as its trainers save them (a `.pth` with a state_dict) into a model directory.

    pip install torch safetensors
    python scripts/convert_pth.py full_sft_512.pth OUT_DIR [--tokenizer DIR] [--num-attention-heads 8] [...]

Sizes that the shapes show are read from them. What no tensor shows (the number of heads where q and k are not normalised, the
base of the rotary frequencies, the experts of a token) is a flag, and is printed together with what was taken for it.
Values keep their type. Left out: the tables of rotary embedding, masks, and an output projection that is the embedding.
"""
import argparse
import json
import pathlib
import re
import shutil
import sys

import torch
from safetensors.torch import save_file

# Computed, not learned: buffers of the old code.
BUFFERS = re.compile(r"(^|\.)(freqs_cos|freqs_sin|pos_cis|inv_freq|mask|causal_mask)$")
# Names of the first MiniMind, whose blocks are another network.
FIRST = ("tok_embeddings.weight", "layers.0.attention.wq.weight")
BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


def fail(message: str):
    sys.exit(f"error: {message}")


def read(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, under the names of the public weights."""
    # Only tensors and plain containers: a pickle that holds code is refused by torch.
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        fail(f"{path} holds no state_dict of tensors")
    # DistributedDataParallel and torch.compile wrap the model, each with a prefix.
    tensors = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in state.items()}
    if any(name in tensors for name in FIRST):
        fail(f"{path} is of MiniMind's first generation, which is another network; supported are MiniMind-2 and -3")
    return tensors


def drop_what_is_computed(tensors: dict[str, torch.Tensor]) -> bool:
    """Removes buffers and a tied head, saying so; returns whether the head is tied."""
    for name in [name for name in tensors if BUFFERS.search(name)]:
        print(f"left out: {name}, which is computed")
        del tensors[name]
    head, embedding = tensors.get("lm_head.weight"), tensors.get("model.embed_tokens.weight")
    tied = head is None or (embedding is not None and torch.equal(head, embedding))
    if tied and head is not None:
        print("left out: lm_head.weight, which is the embedding")
        del tensors["lm_head.weight"]
    return tied


class Sizes:
    """What the shapes show, and what was given."""

    def __init__(self, tensors: dict[str, torch.Tensor], flags: argparse.Namespace):
        self.tensors, self.flags, self.assumed = tensors, flags, []

    def shape(self, name: str) -> list[int]:
        if name not in self.tensors:
            fail(f"the tensor {name} is missing: this is not a MiniMind-2 or -3")
        return list(self.tensors[name].shape)

    def assume(self, name: str, default):
        """A setting that no tensor shows."""
        given = getattr(self.flags, name)
        if given is None:
            self.assumed.append(f"{name} {default}")
        return default if given is None else given


def config(tensors: dict[str, torch.Tensor], tied: bool, flags: argparse.Namespace) -> tuple[dict, list[str]]:
    """config.json in MiniMind's own form, and the settings that were assumed."""
    sizes = Sizes(tensors, flags)
    layer = "model.layers.0"
    vocab_size, hidden_size = sizes.shape("model.embed_tokens.weight")
    layers = 1 + max(int(found[1]) for name in tensors if (found := re.match(r"model\.layers\.(\d+)\.", name)))
    q, k = (sizes.shape(f"{layer}.self_attn.{x}_proj.weight")[0] for x in "qk")
    third = f"{layer}.self_attn.q_norm.weight" in tensors
    if third:
        heads = q // sizes.shape(f"{layer}.self_attn.q_norm.weight")[0]
    else:
        heads = sizes.assume("num_attention_heads", 8)
    if q % heads or k % (q // heads):
        fail(f"{heads} heads do not fit q of {q} rows and k of {k}; give --num-attention-heads")
    head_dim = q // heads
    experts = len({name.split(".experts.")[1].split(".")[0] for name in tensors if f"{layer}.mlp.experts." in name})
    mlp = f"{layer}.mlp.experts.0" if experts else f"{layer}.mlp"
    kinds = {value.dtype for value in tensors.values()}
    names = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
    if not kinds <= names.keys():
        fail(f"tensors of {', '.join(map(str, kinds - names.keys()))}; supported are float32, float16 and bfloat16")
    result = {
        "model_type": "minimind",
        "architectures": ["MiniMindForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": sizes.shape(f"{mlp}.gate_proj.weight")[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": k // head_dim,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sizes.assume("max_position_embeddings", 32768),
        "rms_norm_eps": sizes.assume("rms_norm_eps", 1e-6 if third else 1e-5),
        "rope_theta": sizes.assume("rope_theta", 1e6),
        "tie_word_embeddings": tied,
        "dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "use_moe": experts > 0,
        "torch_dtype": names[max(kinds, key=lambda kind: kind.itemsize)],
    }
    if experts and third:
        result |= {"num_experts": experts, "moe_intermediate_size": result["intermediate_size"], "norm_topk_prob": True}
        result["num_experts_per_tok"] = sizes.assume("num_experts_per_tok", 1)
        result["router_aux_loss_coef"] = sizes.assume("aux_loss", 5e-4)
    elif experts:
        shared = {name.split(".shared_experts.")[1].split(".")[0] for name in tensors if f"{layer}.mlp.shared_experts." in name}
        result |= {"n_routed_experts": experts, "n_shared_experts": len(shared), "scoring_func": "softmax", "seq_aux": True}
        result |= {"aux_loss_alpha": sizes.assume("aux_loss", 0.1), "norm_topk_prob": True}
        result["num_experts_per_tok"] = sizes.assume("num_experts_per_tok", 2)
    return result, sizes.assumed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=pathlib.Path, help="a .pth")
    parser.add_argument("out", type=pathlib.Path, help="the directory that is written")
    parser.add_argument("--tokenizer", type=pathlib.Path, metavar="DIR", help="copies tokenizer.json and its like from here")
    parser.add_argument("--num-attention-heads", type=int, metavar="N")
    parser.add_argument("--num-experts-per-tok", type=int, metavar="N")
    parser.add_argument("--max-position-embeddings", type=int, metavar="N")
    parser.add_argument("--rope-theta", type=float, metavar="X")
    parser.add_argument("--rms-norm-eps", type=float, metavar="X")
    parser.add_argument("--aux-loss", type=float, metavar="X", help="weight of the loss that balances experts, for further training")
    flags = parser.parse_args()
    if (flags.out / "model.safetensors").exists():
        fail(f"{flags.out}/model.safetensors is there already")
    tensors = read(flags.weights)
    tied = drop_what_is_computed(tensors)
    settings, assumed = config(tensors, tied, flags)
    flags.out.mkdir(parents=True, exist_ok=True)
    # Tensors of one state_dict may share memory, which the format does not hold.
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, flags.out / "model.safetensors", {"format": "pt"})
    (flags.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for name in BESIDE if flags.tokenizer else ():
        if (flags.tokenizer / name).exists():
            shutil.copy(flags.tokenizer / name, flags.out)
    total = sum(value.numel() for value in tensors.values())
    print(f"{flags.out}: {len(tensors)} tensors, {total / 1e6:.1f} M parameters, {settings['torch_dtype']}")
    if assumed:
        print("no tensor shows these, so they were taken as MiniMind publishes them; flags give others:", "; ".join(assumed))


if __name__ == "__main__":
    main()
