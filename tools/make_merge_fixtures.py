#!/usr/bin/env python3
"""Makes crates/selma-lora/tests/fixtures/merge_goldens.safetensors: merges of PEFT, mergekit and formulas.

    python tools/make_merge_fixtures.py

Three adapters on a linear layer, a 3x3 and a 1x1 convolution, twice: with equal ranks (for methods on
the factors) and with unequal ones; alphas differ and one weight is negative. Recorded are the factors,
the masks that were drawn, and the dense update of every merge, all computed in double precision.

- `peft_*`: by PEFT's `add_weighted_adapter`.
- `mk_*`: by mergekit's own functions, on the dense updates with a base of zeros.
- `kohya`, `knots_*`, `core_*`, `tsv`, `robust`, `ssr`: from their published formulas, computed densely
  below, because none of these is a package.

Needs torch, peft, mergekit, safetensors.
"""

import json
import math
import pathlib

import torch
from mergekit.merge_methods import registry
from mergekit.merge_methods.base import TensorGroup
from mergekit.merge_methods.karcher import karcher_merge_tensors
from mergekit.merge_methods.nuslerp import nuslerp
from mergekit.merge_methods.slerp import slerp
from peft import LoraConfig, LoraModel
from safetensors.torch import save_file
from torch import nn

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/selma-lora/tests/fixtures/merge_goldens.safetensors"
NAMES = ["a", "b", "c"]
MODULES = ["linear", "conv", "pointwise"]
WEIGHTS = [0.7, -0.4, 1.3]
# Module -> ranks and alphas of the three adapters.
SETS = {
    "equal": {"linear": ([4, 4, 4], [8, 2, 3]), "conv": ([4, 4, 4], [4, 6, 1]), "pointwise": ([4, 4, 4], [4, 1, 5])},
    "unequal": {"linear": ([4, 2, 3], [8, 2, 1]), "conv": ([2, 4, 3], [4, 6, 6]), "pointwise": ([4, 3, 1], [4, 7, 1])},
}
torch.set_default_dtype(torch.float64)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(10, 12)
        self.conv = nn.Conv2d(3, 5, 3)
        self.pointwise = nn.Conv2d(7, 8, 1)


def adapted(kind, names=NAMES):
    """PEFT's model with the adapters; factors hold single precision numbers, as files do."""
    torch.manual_seed(0)
    model = None
    configs = {}
    for i, name in enumerate(names):
        ranks = {module: SETS[kind][module][0][i] for module in SETS[kind]}
        alphas = {module: SETS[kind][module][1][i] for module in SETS[kind]}
        top = max(ranks.values())
        configs[name] = LoraConfig(
            r=top, lora_alpha=1, target_modules=list(ranks), alpha_pattern=alphas,
            rank_pattern={} if kind == "equal" else ranks,
        )
        if model is None:
            model = LoraModel(Tiny(), configs[name], name)
        else:
            model.peft_config[name] = configs[name]
            model.inject_adapter(model.model, name)
    for i, name in enumerate(names):
        generator = torch.Generator().manual_seed(7 + i)
        for key, parameter in sorted(model.model.named_parameters()):
            if "lora_" in key and f".{name}." in key:
                values = torch.randn(parameter.shape, generator=generator) * 0.4
                parameter.data.copy_(values.float().double())
    return model


def layers(model):
    return {name: getattr(model.model, name) for name in MODULES}


class Recorder:
    """Keeps what torch.bernoulli draws."""

    def __enter__(self):
        self.masks, self.original = [], torch.bernoulli

        def record(*args, **kwargs):
            mask = self.original(*args, **kwargs)
            self.masks.append(mask.bool().flatten())
            return mask

        torch.bernoulli = record
        return self

    def __exit__(self, *_):
        torch.bernoulli = self.original


golden, cases = {}, {}


def keep(case, options, updates, masks=None):
    """Records a case: its options as fields of a recipe, its updates and masks by module."""
    cases[case] = options
    # One tensor for all modules, in the order of MODULES: names cost more than numbers.
    golden[f"out/{case}"] = torch.cat([updates[module].detach().flatten() for module in MODULES]).float()
    for key, mask in (masks or {}).items():
        golden[f"mask/{case}/unet.{key}"] = mask.to(torch.uint8)


def peft_cases():
    def run(case, kind, combination, options, names=NAMES, **arguments):
        model = adapted(kind)
        torch.manual_seed(len(cases))
        with Recorder() as recorder:
            model.add_weighted_adapter(
                names, WEIGHTS[: len(names)], "merged", combination_type=combination, **arguments
            )
        updates = {name: layer.get_delta_weight("merged") for name, layer in layers(model).items()}
        masks, drawn = {}, iter(recorder.masks)
        if recorder.masks:
            parts = ["dW"] if combination.endswith("_svd") else ["A", "B"]
            for module in updates:
                for part in parts:
                    for i in range(len(names)):
                        masks[f"{module}.{i}.{part}"] = next(drawn)
        assert next(drawn, None) is None
        keep(case, {"set": kind, "weights": WEIGHTS[: len(names)], **options}, updates, masks)

    run("peft_linear", "equal", "linear", {"method": "peft_linear"})
    run("peft_one", "equal", "ties", {"method": "peft_ties", "density": 0.5}, names=["a"], density=0.5)
    for suffix, kind in [("", "equal"), ("_svd", "unequal")]:
        for majority in ["total", "frequency"]:
            run(f"peft_ties{suffix}_{majority}", kind, f"ties{suffix}",
                {"method": f"peft_ties{suffix}", "density": 0.55, "majority": majority},
                density=0.55, majority_sign_method=majority)
        for method in ["dare_linear", "dare_ties", "magnitude_prune"]:
            run(f"peft_{method}{suffix}", kind, f"{method}{suffix}",
                {"method": f"peft_{method}{suffix}", "density": 0.6}, density=0.6)
    run("peft_linear_svd", "unequal", "svd", {"method": "peft_linear_svd"})
    run("peft_linear_svd_3", "unequal", "svd", {"method": "peft_linear_svd", "rank": 3}, svd_rank=3)
    # The rank that all modules can have.
    run("peft_ties_svd_5", "unequal", "ties_svd", {"method": "peft_ties_svd", "density": 0.3, "rank": 5},
        svd_rank=5, density=0.3)


def factors(kind):
    """Module -> list of (A, B, alpha / rank), flattened."""
    model = adapted(kind)
    found = {}
    for module, layer in layers(model).items():
        found[module] = []
        for name in NAMES:
            a, b = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
            found[module].append((a, b, layer.scaling[name]))
            golden[f"in/{kind}/{name}/unet.{module}/a"] = a.float().contiguous()
            golden[f"in/{kind}/{name}/unet.{module}/b"] = b.float().contiguous()
            golden[f"in/{kind}/{name}/unet.{module}/alpha"] = torch.tensor([layer.scaling[name] * a.shape[0]]).float()
    return {
        module: [(a.flatten(1), b.flatten(1), s) for a, b, s in adapters] for module, adapters in found.items()
    }


def deltas(kind):
    return {module: [s * b @ a for a, b, s in adapters] for module, adapters in factors(kind).items()}


def mergekit_cases():
    updates = deltas("unequal")

    def run(case, method, options, lam=1.0, normalize=None, rescale=None, density=1.0, **extra):
        torch.manual_seed(len(cases))
        merge = registry.get(method)
        outs, masks = {}, {}
        for module, tensors in updates.items():
            group = TensorGroup.from_tensors([torch.zeros_like(tensors[0]), *tensors], base_index=0)
            per = lambda value: {i + 1: value for i in range(len(tensors))}
            with Recorder() as recorder:
                outs[module] = merge.merge_group(
                    group, weight={i + 1: w for i, w in enumerate(WEIGHTS)}, density=per(density), int8_mask=False,
                    normalize=merge.default_normalize if normalize is None else normalize,
                    rescale=merge.default_rescale, **{"lambda": lam}, **{k: per(v) for k, v in extra.items()},
                )
            for i, mask in enumerate(recorder.masks):
                masks[f"{module}.{i}.dW"] = mask
        keep(case, {"set": "unequal", "weights": WEIGHTS, "rank": 12, "method": f"mk_{method}", **options}, outs, masks)

    run("mk_task_arithmetic", "task_arithmetic", {"lambda": 0.6}, lam=0.6)
    run("mk_linear", "task_arithmetic", {"normalize": True}, normalize=True)
    run("mk_ties", "ties", {"density": 0.4}, density=0.4)
    run("mk_ties_plain", "ties", {"density": 0.4, "normalize": False, "lambda": 0.5}, density=0.4, normalize=False, lam=0.5)
    run("mk_dare_linear", "dare_linear", {"density": 0.6}, density=0.6)
    run("mk_dare_ties", "dare_ties", {"density": 0.6}, density=0.6)
    run("mk_breadcrumbs", "breadcrumbs", {"density": 0.6, "gamma": 0.05}, density=0.6, gamma=0.05)
    run("mk_breadcrumbs_ties", "breadcrumbs_ties", {"density": 0.6, "gamma": 0.05}, density=0.6, gamma=0.05)
    run("mk_della", "della", {"density": 0.5}, density=0.5, epsilon=0.15)
    run("mk_della_linear", "della_linear", {"density": 0.6, "epsilon": 0.1}, density=0.6, epsilon=0.1)

    two = {"set": "unequal", "weights": [0.7, 1.3], "rank": 12}
    t = 1.3 / 2.0
    keep("mk_slerp", {**two, "method": "mk_slerp"}, {
        module: slerp(torch.tensor([t]), x[0][None], x[1][None])[0] for module, x in updates.items()
    })
    keep("mk_nuslerp", {**two, "method": "mk_nuslerp"}, {
        module: nuslerp(t, x[0], x[1], flatten=True) for module, x in updates.items()
    })
    all_three = {"set": "unequal", "weights": WEIGHTS, "rank": 12}
    weighted = {module: [w * x for w, x in zip(WEIGHTS, tensors)] for module, tensors in updates.items()}
    keep("mk_model_stock", {**all_three, "method": "mk_model_stock"}, {
        module: group_merge("model_stock", x) for module, x in weighted.items()
    })
    for density in [1.0, 0.6]:
        keep(f"mk_sce_{density}", {**all_three, "method": "mk_sce", "density": density}, {
            module: group_merge("sce", x, select_topk=density, int8_mask=False) for module, x in weighted.items()
        })
    keep("mk_karcher", {**all_three, "method": "mk_karcher"}, {
        module: karcher_merge_tensors(x, [1 / 3] * 3) for module, x in weighted.items()
    })


def group_merge(name, tensors, **parameters):
    """A merge of a group with a base of zeros."""
    group = TensorGroup.from_tensors([torch.zeros_like(tensors[0]), *tensors], base_index=0)
    return registry.get(name).merge_group(group, **parameters)


def kohya_cases():
    """networks/merge_lora.py of sd-scripts: both factors times ratio and root of alpha / first alpha."""
    outs = {}
    for module, adapters in factors("equal").items():
        rank = adapters[0][0].shape[0]
        base = adapters[0][2] * rank
        up, down = 0, 0
        for (a, b, s), ratio in zip(adapters, WEIGHTS):
            q = ratio * math.sqrt(s * rank / base)
            up, down = up + abs(q) * b, down + q * a
        outs[module] = base / rank * up @ down
    keep("kohya", {"set": "equal", "weights": WEIGHTS, "method": "kohya"}, outs)


def top(x, density):
    flat = x.flatten()
    kept = flat.abs().argsort(descending=True)[: max(1, int(density * flat.numel()))]
    mask = torch.zeros_like(flat)
    mask[kept] = 1
    return x * mask.reshape(x.shape)


def ties(tensors):
    stack = torch.stack(tensors)
    sign = torch.where(stack.sum(0) >= 0, 1.0, -1.0)
    agree = stack.sign() == sign
    return (stack * agree).sum(0) / agree.sum(0).clamp(min=1)


def polar(x):
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh


def tsv(tensors, ranks, limit):
    us, ss, vs = [], [], []
    for x, r in zip(tensors, ranks):
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        k = min(r, max(1, limit))
        us.append(u[:, :k]), ss.append(s[:k]), vs.append(vh[:k])
    return polar(torch.cat(us, 1)) @ torch.diag(torch.cat(ss)) @ polar(torch.cat(vs, 0))


def subspace_cases():
    weighted, bases = {}, {}
    for module, adapters in factors("unequal").items():
        weighted[module] = [w * s * b @ a for (a, b, s), w in zip(adapters, WEIGHTS)]
        bases[module] = (
            torch.linalg.svd(torch.cat([b for _, b, _ in adapters], 1), full_matrices=False)[0],
            torch.linalg.svd(torch.cat([a for a, _, _ in adapters], 0), full_matrices=False)[2],
        )
    ranks = {module: [a.shape[0] for a, _, _ in adapters] for module, adapters in factors("unequal").items()}
    common = {"set": "unequal", "weights": WEIGHTS}

    def knots(merge):
        outs = {}
        for module, x in weighted.items():
            u, s, _ = torch.linalg.svd(torch.cat(x, 1), full_matrices=False)
            u = u[:, s > 1e-7 * s[0]]
            outs[module] = u @ merge(module, [u.T @ d for d in x])
        return outs

    def core(merge):
        outs = {}
        for module, x in weighted.items():
            u, vh = bases[module]
            outs[module] = u @ merge(module, [u.T @ d @ vh.T for d in x]) @ vh
        return outs

    def isotropic(_, x):
        u, s, vh = torch.linalg.svd(sum(x), full_matrices=False)
        return s.mean() * u @ vh

    pruned = lambda density: lambda _, x: ties([top(d, density) for d in x])
    keep("knots_sum", {**common, "method": "knots_sum"}, knots(lambda _, x: sum(x)))
    keep("knots_ties", {**common, "method": "knots_ties", "density": 0.4}, knots(pruned(0.4)))
    keep("core_sum", {**common, "method": "core_sum"}, core(lambda _, x: sum(x)))
    keep("core_ties", {**common, "method": "core_ties", "density": 0.4}, core(pruned(0.4)))
    keep("core_iso", {**common, "method": "core_iso", "lambda": 0.7},
         {k: 0.7 * v for k, v in core(isotropic).items()})
    keep("core_tsv", {**common, "method": "core_tsv"},
         core(lambda module, x: tsv(x, ranks[module], min(x[0].shape) // 3)))
    keep("tsv", {**common, "method": "tsv"},
         {module: tsv(x, ranks[module], min(x[0].shape) // 3) for module, x in weighted.items()})

    for kind in ["knots", "core"]:
        torch.manual_seed(len(cases))
        masks = {}

        def dropped(module, x):
            kept = []
            for i, d in enumerate(x):
                mask = torch.bernoulli(torch.full_like(d, 0.6))
                masks[f"{module}.{i}.{kind}"] = mask.bool().flatten()
                kept.append(d * mask / 0.6)
            return ties(kept) if kind == "knots" else sum(kept)

        outs = {"knots": knots, "core": core}[kind](dropped)
        keep(f"{kind}_dare", {**common, "method": f"{kind}_dare", "density": 0.6}, outs, masks)


def robust_cases():
    outs = {}
    for module, adapters in factors("equal").items():
        kept = [(top(a, 0.3), top(b, 0.3)) for a, b, _ in adapters]
        loss = torch.stack([
            a.abs().sum(1) / (p.abs().sum(1) + 1e-6) for (a, _, _), (p, _) in zip(adapters, kept)
        ])
        share = loss / (loss.sum(0, keepdim=True) + 1e-6)
        outs[module] = 2 * sum(
            w * s * b @ torch.diag(x) @ a for (a, b), (_, _, s), w, x in zip(kept, adapters, WEIGHTS, share)
        )
    keep("robust", {"set": "equal", "weights": WEIGHTS, "method": "robust", "density": 0.3}, outs)


def ssr_cases():
    """Calibration data are recorded as z, the inputs behind the stacked A."""
    outs = {}
    for module, adapters in factors("unequal").items():
        a_cat = torch.cat([a for a, _, _ in adapters], 0)
        b_cat = torch.cat([w * s * b for (_, b, s), w in zip(adapters, WEIGHTS)], 1)
        ranks = [a.shape[0] for a, _, _ in adapters]
        generator = torch.Generator().manual_seed(3)
        g, q, count = 0, torch.zeros(sum(ranks), sum(ranks)), 0
        for i, r in enumerate(ranks):
            x = torch.randn(a_cat.shape[1], 40, generator=generator) + i
            z = (a_cat @ x).float().double()
            golden[f"z/ssr/{i}/unet.{module}"] = z.T.float().contiguous()
            g, count, start = g + z @ z.T, count + 40, sum(ranks[:i])
            q[start : start + r] += z[start : start + r] @ z.T
        router = torch.linalg.solve(g / count + 1e-3 * torch.eye(sum(ranks)), (q / count).T).T
        outs[module] = b_cat @ router @ a_cat
    keep("ssr", {"set": "unequal", "weights": WEIGHTS, "method": "ssr", "ridge": 1e-3}, outs)


def main():
    peft_cases()
    factors("equal")
    mergekit_cases()
    kohya_cases()
    subspace_cases()
    robust_cases()
    ssr_cases()
    save_file(golden, OUT, metadata={"cases": json.dumps(cases)})
    OUT.chmod(0o644)
    print(f"{len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
