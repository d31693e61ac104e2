#!/usr/bin/env python3
"""What PyTorch reaches on this GPU at the shapes that `ferromind lab bench --device cuda` times: products by cuBLASLt, fused attention
by FlashAttention and cuDNN, and a plain copy. Random data, L2 overwritten between runs, medians of device events.

  python3 benches/kernel_peers.py [--json FILE]        needs PyTorch with CUDA; without a GPU it says so and exits with 2
"""

import argparse
import json
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

RUNS = 20
# (in, out) of the layers' products: q, k, v together; attention's output; gate and up; down; logits.
LAYERS = {
    "minimind2-26m": [(512, 768), (512, 512), (512, 2816), (1408, 512), (512, 6400)],
    "minimind3-64m": [(768, 1536), (768, 768), (768, 4864), (2432, 768), (768, 6400)],
}
TOKENS = 32768
# (head width, value width, query heads, key heads, sequence, batch)
ATTENTION = [
    (64, 64, 8, 2, 512, 64),
    (64, 64, 8, 2, 2048, 16),
    (96, 96, 8, 4, 512, 64),
    (128, 128, 16, 8, 2048, 8),
    (192, 128, 16, 16, 2048, 8),
]


def median_seconds(run, flush):
    """Median device time of `run` with a cold L2."""
    for _ in range(3):
        run()
    times = []
    for _ in range(RUNS):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(times)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def products(flush):
    for model, layers in LAYERS.items():
        for k, n in layers:
            x, w, dy = random(TOKENS, k), random(n, k), random(TOKENS, n)
            passes = {"forward": lambda: x @ w.T, "input gradient": lambda: dy @ w, "weight gradient": lambda: dy.T @ x}
            for name, run in passes.items():
                seconds = median_seconds(run, flush)
                yield {
                    "op": "linear", "pass": name, "model": model, "shape": f"{TOKENS}x{n}x{k}", "seconds": seconds,
                    "tflops": 2 * TOKENS * k * n / seconds * 1e-12,
                }


def attention(flush):
    for width, value_width, heads, key_heads, sequence, batch in ATTENTION:
        shape = f"{batch}x{sequence} heads {heads}/{key_heads} width {width}/{value_width}"
        q = random(batch, heads, sequence, width).requires_grad_()
        k = random(batch, key_heads, sequence, width).requires_grad_()
        v = random(batch, key_heads, sequence, value_width).requires_grad_()
        # Half the square is masked.
        flops = batch * heads * sequence * sequence * (width + value_width)
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            row = {"op": "attention", "shape": shape, "backend": backend.name}
            try:
                with sdpa_kernel(backend):
                    run = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
                    forward = median_seconds(run, flush)
                    o = run()
                    do = torch.randn_like(o)
                    backward = median_seconds(lambda: torch.autograd.grad(o, (q, k, v), do, retain_graph=True), flush)
                yield row | {"pass": "forward", "seconds": forward, "tflops": flops / forward * 1e-12}
                yield row | {"pass": "backward", "seconds": backward, "tflops": 2.5 * flops / backward * 1e-12}
            except RuntimeError as error:
                yield row | {"error": str(error).splitlines()[0]}


def copy(flush):
    x = random(1 << 29)
    y = torch.empty_like(x)
    seconds = median_seconds(lambda: y.copy_(x), flush)
    yield {"op": "copy", "pass": "forward", "shape": str(x.numel()), "seconds": seconds, "tb_s": 2 * x.nbytes / seconds * 1e-12}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="where the rows go, as they come")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        return 2
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "rows": []}
    for family in (copy, products, attention):
        for row in family(flush):
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
            if options.json:
                with open(options.json, "w") as file:
                    json.dump(result, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
