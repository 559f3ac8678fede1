#!/usr/bin/env python3
"""Makes the fixture of mixtures of crates/selma-lora with PyTorch.

    python tools/make_mixture_fixtures.py     # writes crates/selma-lora/tests/fixtures/mixture.safetensors

The layer of MoE-LoRA as SELMA describes it (arXiv 2403.06952, appendix I): a linear router without bias on the layer's
input, the K largest weights normalised by softmax, and y = W0 x + sum_i w_i scale_i B_i A_i x; and that of CAT (LoRA
Soups, arXiv 2410.13025), with a weight for each expert. Recorded are outputs and gradients in double precision.

Needs torch, numpy, safetensors.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

PATH = Path(__file__).parent.parent / "crates/selma-lora/tests/fixtures/mixture.safetensors"
INPUTS, OUTPUTS = 6, 4
RANKS, SCALES = [2, 3, 1], [1.0, 0.5, 2.0]


def main():
    generator = torch.Generator().manual_seed(6)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).double()

    x, base, upstream = draw(2, 5, INPUTS), draw(OUTPUTS, INPUTS), draw(2, 5, OUTPUTS)
    downs = [draw(rank, INPUTS) for rank in RANKS]
    ups = [draw(OUTPUTS, rank) for rank in RANKS]
    gate, weights = draw(len(RANKS), INPUTS), draw(len(RANKS))
    tensors = {"x": x, "base": base, "upstream": upstream, "gate": gate, "weights": weights,
               "scales": torch.tensor(SCALES)}
    for index, (down, up) in enumerate(zip(downs, ups)):
        tensors |= {f"a.{index}": down, f"b.{index}": up}

    for case in ["top1", "top2", "top3", "weights"]:
        leaves = {"x": x, "gate": gate, "weights": weights}
        leaves |= {f"a.{index}": down for index, down in enumerate(downs)}
        leaves |= {f"b.{index}": up for index, up in enumerate(ups)}
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in leaves.items()}
        output = layer(leaves, base, case)
        (output * upstream).sum().backward()
        tensors[f"{case}.output"] = output.detach()
        for name, leaf in leaves.items():
            if leaf.grad is not None:
                tensors[f"{case}.grad.{name}"] = leaf.grad
    save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, PATH)


def layer(leaves, base, case):
    x = leaves["x"]
    if case == "weights":
        shares = leaves["weights"].expand(*x.shape[:-1], -1)
    else:
        logits = x @ leaves["gate"].T
        largest, kept = logits.topk(int(case.removeprefix("top")))
        shares = torch.zeros_like(logits).scatter(-1, kept, largest.softmax(-1))
    output = x @ base.T
    for index, scale in enumerate(SCALES):
        update = x @ leaves[f"a.{index}"].T @ leaves[f"b.{index}"].T
        output = output + shares[..., index:index + 1] * scale * update
    return output


if __name__ == "__main__":
    main()
