"""Makes the parity fixtures of selma-kernels, kernels.safetensors, conv2d.safetensors and attention.safetensors, from torch.

    python tools/make_kernel_fixtures.py [--out crates/selma-kernels/tests/fixtures]

Written with torch 2.15. Inputs are f32 with fixed seeds; outputs and gradients are computed in f64 and rounded to f32, so that they
carry no rounding errors of torch's own kernels. `<case>.x`, `.y` (output), `.dy` (gradient of the output), `.dx`, and for
`group_norm*` and `conv2d*` also `.weight`, `.bias`, `.dweight`, `.dbias`, for `attention*`, where `.x` is the query, `.key`, `.value`,
`.dkey`, `.dvalue`. `*_special` hold infinities, NaN and the edges of the range.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

SPECIAL = [0.0, -0.0, 1e-30, -1e-30, 1e-42, 20.0, -20.0, 88.0, -88.0, 100.0, -100.0, 104.5, -104.5, 3e38, -3e38, float("inf"), float("-inf"), float("nan")]


def geglu(x):
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def record(out, case, function, x, seed, **parameters):
    generator = torch.Generator().manual_seed(seed)
    x64 = x.double().requires_grad_()
    wide = {name: value.double().requires_grad_() for name, value in parameters.items()}
    y = function(x64, **wide)
    dy = torch.randn(y.shape, generator=generator)
    y.backward(dy.double())
    out |= {f"{case}.x": x, f"{case}.y": y.detach().float(), f"{case}.dy": dy, f"{case}.dx": x64.grad.float()}
    for name, value in parameters.items():
        out |= {f"{case}.{name}": value, f"{case}.d{name}": wide[name].grad.float()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("crates/selma-kernels/tests/fixtures"))
    out = {}
    grid = torch.linspace(-12, 12, 1021)
    special = torch.tensor(SPECIAL)
    for name, function in [("silu", F.silu), ("gelu", F.gelu)]:
        record(out, name, function, grid, 1)
        record(out, f"{name}_special", function, special, 2)
    generator = torch.Generator().manual_seed(3)
    record(out, "geglu", geglu, 3 * torch.randn(2, 3, 2 * 37, generator=generator), 4)
    for name, shape, groups, eps, mean, std in [
        ("group_norm", (2, 6, 5, 3), 3, 1e-5, 0.0, 1.0),
        ("group_norm_one_group", (1, 4, 7, 9), 1, 1e-6, -2.0, 0.1),
        ("group_norm_instance", (2, 3, 1, 33), 3, 1e-6, 0.5, 3.0),
        ("group_norm_far_mean", (1, 4, 9, 11), 2, 1e-5, 300.0, 1.0),
        ("group_norm_constant", (1, 2, 3, 3), 2, 1e-5, 7.0, 0.0),
    ]:
        channels = shape[1]
        x = mean + std * torch.randn(shape, generator=generator)
        weight = 1 + 0.5 * torch.randn(channels, generator=generator)
        bias = 0.5 * torch.randn(channels, generator=generator)
        for suffix, activation in [("", lambda z: z), ("_silu", F.silu)]:
            norm = lambda x, weight, bias: activation(F.group_norm(x, groups, weight, bias, eps))
            record(out, name + suffix, norm, x, 5, weight=weight, bias=bias)
    kernels, out = out, {}
    for name, shape, outputs, kernel, stride, padding in [
        ("conv2d", (2, 9, 7, 6), 13, 3, 1, 1),
        ("conv2d_small", (17, 5, 4, 4), 6, 3, 1, 1),
        ("conv2d_strided", (1, 4, 9, 8), 5, 3, 2, 1),
        ("conv2d_pointwise", (2, 6, 5, 5), 4, 1, 1, 0),
    ]:
        x = torch.randn(shape, generator=generator)
        weight = torch.randn(outputs, shape[1], kernel, kernel, generator=generator)
        bias = torch.randn(outputs, generator=generator)
        convolve = lambda x, weight, bias: F.conv2d(x, weight, bias, stride, padding)
        record(out, name, convolve, x, 6, weight=weight, bias=bias)
    convolutions, out = out, {}
    for name, shape, keys, value_width, spread in [
        ("attention", (2, 3, 5, 8), 7, 8, 1.0),
        ("attention_long", (1, 2, 50, 5), 140, 3, 1.0),
        ("attention_peaked", (1, 1, 20, 16), 30, 16, 6.0),
    ]:
        batch, heads, _, width = shape
        x = spread * torch.randn(shape, generator=generator)
        key = spread * torch.randn(batch, heads, keys, width, generator=generator)
        value = torch.randn(batch, heads, keys, value_width, generator=generator)
        record(out, name, F.scaled_dot_product_attention, x, 7, key=key, value=value)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for file, cases in [("kernels", kernels), ("conv2d", convolutions), ("attention", out)]:
        save_file({name: value.clone() for name, value in cases.items()}, folder / f"{file}.safetensors")


if __name__ == "__main__":
    main()
