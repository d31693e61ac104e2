#!/usr/bin/env python3
"""Compares `ferromind eval` with the same computation done by the public transformers library.

    pip install torch transformers tokenizers safetensors
    cargo build --release
    python scripts/check_eval.py [--binary FILE] [--freeze DIR]

Writes a small tokenizer, a Llama and a Qwen3 with random weights, documents and questions; computes the loss of documents (one
forward pass each, long ones in strided windows, the library's own loss) and the log-likelihood of every ending, one by one; and
compares them with ours, which must agree to 1e-4. Exit status 1 where they do not. `--freeze DIR` keeps the files and the
library's numbers (`expected.json`): so tests/data/eval was made.
"""
import argparse
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOUND = 1e-4
MAX_SEQ_LEN, STRIDE = 96, 40
VOCAB = 400
SIZES = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=256, tie_word_embeddings=True,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
SUBJECTS = ["the fox", "an old sailor", "my sister", "the small robot", "a crow", "the baker's son", "nobody", "Grüße, Jürgen"]
VERBS = ["opened", "painted", "forgot", "carried home", "could not find", "sold", "dropped", "looked for"]
OBJECTS = ["a green door", "the letter", "two boats", "some bread", "an umbrella", "the 3rd key", "東京の地図", "a song"]
PLACES = ["by the river", "at noon", "in the rain", "without a word", "behind the mill", "for 25 cents", "again"]


def sentence(draw: random.Random) -> str:
    words = " ".join(draw.choice(kind) for kind in (SUBJECTS, VERBS, OBJECTS, PLACES))
    return words[0].upper() + words[1:] + draw.choice(".!?.")


def write_data(out: pathlib.Path) -> None:
    """Documents short and long, questions with few and many words, labels as numbers and as text."""
    draw = random.Random(7)
    documents = [" ".join(sentence(draw) for _ in range(draw.randint(1, 4))) for _ in range(16)] + ["a", "Zwei\nZeilen\n"]
    lines = [json.dumps({"text": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(documents)]
    (out / "text.jsonl").write_text("\n".join(lines) + "\n")
    (out / "long.txt").write_text("\n".join(sentence(draw) for _ in range(60)) + "\n")
    questions = []
    for i in range(12):
        context = " ".join(sentence(draw) for _ in range(draw.randint(1, 3))) + " " + draw.choice(SUBJECTS)
        endings = [f"{draw.choice(VERBS)} {draw.choice(OBJECTS)}" + f" {draw.choice(PLACES)}" * draw.randint(0, 2) + "."
                   for _ in range(4)]
        endings[0] = ", " + endings[0] if i % 4 == 0 else endings[0]
        label = draw.randint(0, 3)
        questions.append({"ind": i, "activity_label": "Stories", "ctx_a": context, "ctx_b": "", "ctx": context + " " * (i % 5 == 2),
                          "endings": endings, "label": str(label) if i % 2 else label, "split": "val"})
    (out / "choices.jsonl").write_text("".join(json.dumps(q, ensure_ascii=False) + "\n" for q in questions))


def documents(path: pathlib.Path) -> list[str]:
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return [path.read_text()]


def write_tokenizer(out: pathlib.Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(documents(out / "text.jsonl") + documents(out / "long.txt"), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], bos_token=special[1], eos_token=special[2])
    fast.save_pretrained(out)


def write_model(out: pathlib.Path, config, seed: int) -> None:
    """Weights large enough that the context matters, in bfloat16."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(1 + 0.1 * torch.randn_like(weight) if weight.dim() == 1 else 0.25 * torch.randn_like(weight))
    model.to(torch.bfloat16).save_pretrained(out)


@torch.no_grad()
def nats(model, ids: list[int], scored: int) -> float:
    """−ln p of the last `scored` tokens, by the library's own loss."""
    labels = [-100] * (len(ids) - scored) + ids[len(ids) - scored:]
    return model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.double().item() * scored


def text_figures(model, tokenizer, texts: list[str], max_seq_len: int, stride: int, eos: bool) -> dict:
    total, tokens, size = 0.0, 0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [tokenizer.bos_token_id, *ids] + ([tokenizer.eos_token_id] if eos else [])
        seen = 1
        for begin in range(0, len(ids), stride):
            end = min(begin + max_seq_len, len(ids))
            total += nats(model, ids[begin:end], end - seen)
            tokens += end - seen
            seen = end
            if end == len(ids):
                break
        size += len(text.encode())
    loss = total / tokens
    return {"max_seq_len": max_seq_len, "stride": stride, "eos": eos, "loss": loss, "perplexity": math.exp(loss),
            "bits_per_byte": total / math.log(2) / size, "tokens": tokens, "documents": len(texts), "bytes": size}


def choice_figures(model, tokenizer, path: pathlib.Path) -> dict:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    scores, right, right_norm = [], 0, 0
    for row in rows:
        given = len(tokenizer(row["ctx"].rstrip(), add_special_tokens=False)["input_ids"])
        whole = [tokenizer(f"{row['ctx']} {ending}", add_special_tokens=False)["input_ids"] for ending in row["endings"]]
        scores.append([-nats(model, [tokenizer.bos_token_id, *ids], len(ids) - given) for ids in whole])
        by_byte = [score / len(ending.encode()) for score, ending in zip(scores[-1], row["endings"])]
        right += scores[-1].index(max(scores[-1])) == int(row["label"])
        right_norm += by_byte.index(max(by_byte)) == int(row["label"])
    figures = {"log_likelihoods": scores, "questions": len(rows)}
    for name, p in (("acc", right / len(rows)), ("acc_norm", right_norm / len(rows))):
        figures |= {name: p, f"{name}_stderr": math.sqrt(p * (1 - p) / (len(rows) - 1))}
    return figures


def reference(out: pathlib.Path, name: str) -> dict:
    model = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    short, long = documents(out / "text.jsonl"), documents(out / "long.txt")
    return {"text": text_figures(model, tokenizer, short, 256, 128, True),
            "text_no_eos": text_figures(model, tokenizer, short, 256, 128, False),
            "long": text_figures(model, tokenizer, long, MAX_SEQ_LEN, STRIDE, True),
            "choices": choice_figures(model, tokenizer, out / "choices.jsonl")}


def ours(binary: pathlib.Path, out: pathlib.Path, name: str, expected: dict) -> dict:
    def run(*arguments) -> dict:
        command = [binary, "eval", "--model", out / name, "--tokenizer", out, "--json", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(result.stderr)
        return json.loads(result.stdout.splitlines()[-1])

    def text(case: str, file: str) -> dict:
        figures = expected[case]
        flags = ["--max-seq-len", figures["max_seq_len"], "--stride", figures["stride"]] + ["--no-eos"] * (not figures["eos"])
        return run("--data", out / file, *flags)

    with tempfile.NamedTemporaryFile() as log:
        choices = run("--multiple-choice", out / "choices.jsonl", "--log-samples", log.name)
        lines = pathlib.Path(log.name).read_text().splitlines()
    choices["log_likelihoods"] = [json.loads(line)["log_likelihoods"] for line in lines]
    return {"text": text("text", "text.jsonl"), "text_no_eos": text("text_no_eos", "text.jsonl"),
            "long": text("long", "long.txt"), "choices": choices}


def compare(name: str, expected: dict, computed: dict) -> bool:
    good = True
    for case, figures in expected.items():
        for key, value in figures.items():
            other = computed[case].get(key)
            if key == "log_likelihoods":
                pairs = [pair for rows in zip(value, other, strict=True) for pair in zip(*rows, strict=True)]
            elif isinstance(value, float):
                pairs = [(value, other)]
            elif value != other:
                print(f"{name}: {case}: {key} is {other}, expected {value}: FAIL")
                good = False
                continue
            else:
                continue
            error = max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)
            values = f"{len(pairs)} values" if len(pairs) > 1 else f"{value:.6f}"
            print(f"{name}: {case}: {key}: {values}, error {error:.1e}: {'ok' if error <= BOUND else 'FAIL'}")
            good &= error <= BOUND
    return good


def check(out: pathlib.Path, binary: pathlib.Path) -> bool:
    write_data(out)
    write_tokenizer(out)
    write_model(out / "llama", LlamaConfig(**SIZES), 1)
    write_model(out / "qwen3", Qwen3Config(**SIZES), 2)
    expected = {name: reference(out, name) for name in ("llama", "qwen3")}
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return all([compare(name, figures, ours(binary, out, name, figures)) for name, figures in expected.items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target" / "release" / "ferromind")
    parser.add_argument("--freeze", type=pathlib.Path, help="keep the files and numbers in this directory")
    flags = parser.parse_args()
    if flags.freeze:
        flags.freeze.mkdir(parents=True, exist_ok=True)
        sys.exit(0 if check(flags.freeze, flags.binary) else 1)
    with tempfile.TemporaryDirectory() as directory:
        sys.exit(0 if check(pathlib.Path(directory), flags.binary) else 1)
