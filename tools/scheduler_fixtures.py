"""Tables and steps of diffusers' schedulers, with a closed-form model so that no weights are needed.

The closed forms (computed in f64, rounded to f32; i counts the 48 elements):
    start(i)     = 1.2 sin(1.7 i + 0.3), times the scheduler's init_noise_sigma
    model(x,t,i) = 0.8 tanh(x) + 0.2 cos(0.01 t + i)
    noise(k, i)  = 1.1 cos(2.3 i + 0.7 k), k counting the draws
"""

import inspect
import json
import math

import torch
from safetensors.torch import save_file

COUNT = 48
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def tensor(values):
    return torch.tensor(values, dtype=torch.float64).float()


def start():
    return tensor([1.2 * math.sin(1.7 * i + 0.3) for i in range(COUNT)])


def model(x, t):
    return tensor([0.8 * math.tanh(v) + 0.2 * math.cos(0.01 * t + i) for i, v in enumerate(x.double().tolist())])


class Noise:
    def __init__(self):
        self.draws = 0

    def __call__(self, *_args, **_kwargs):
        values = [1.1 * math.cos(2.3 * i + 0.7 * self.draws) for i in range(COUNT)]
        self.draws += 1
        return tensor(values)


def run(scheduler, eta):
    """The loop of the text-to-image pipeline."""
    noise = Noise()
    inspect.getmodule(type(scheduler)).randn_tensor = noise
    # Two dimensions, as DDPM compares the channels of its arguments to find a learned variance.
    x = (start() * scheduler.init_noise_sigma).unsqueeze(0)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        output = model(scaled[0], float(t)).unsqueeze(0)
        extra = {"eta": eta} if eta else {}
        x = scheduler.step(output, t, x, **extra).prev_sample
    return x[0]


def make_scheduler_cases(out):
    import diffusers

    kinds = {n: getattr(diffusers, c) for n, c in {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "pndm": "PNDMScheduler", "euler": "EulerDiscreteScheduler"}.items()}
    base = {**STABLE_DIFFUSION, "num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False, "skip_prk_steps": True}
    cases = []

    def case(kind, steps, walk, eta=0.0, **changes):
        config = {k: v for k, v in {**base, **changes}.items() if v is not None}
        scheduler = kinds[kind].from_config(config)
        scheduler.set_timesteps(steps)
        row = {"scheduler": kind, "steps": steps, "config": config, "eta": eta}
        row["init_noise_sigma"] = float(scheduler.init_noise_sigma)
        row["timesteps"] = [float(t) for t in scheduler.timesteps]
        if kind == "euler":
            row["sigmas"] = [float(s) for s in scheduler.sigmas]
        if walk:
            row["final"] = run(scheduler, eta).tolist()
        cases.append(row)

    spacings = ["leading", "linspace", "trailing"]
    for kind in kinds:
        for spacing in spacings:
            for steps in [5, 10, 50]:
                case(kind, steps, False, timestep_spacing=spacing)
            for prediction in ["epsilon", "v_prediction"] + ([] if kind == "pndm" else ["sample"]):
                case(kind, 8, True, timestep_spacing=spacing, prediction_type=prediction)
        # The class's own default spacing, a step count that does not divide 1000, and one step.
        for steps in [1, 7, 30]:
            case(kind, steps, True)
        case(kind, 8, True, beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
        case(kind, 8, True, beta_schedule="squaredcos_cap_v2")
        case(kind, 8, True, trained_betas=[0.001 + 0.00001 * i for i in range(100)], num_train_timesteps=100)
        case(kind, 8, True, set_alpha_to_one=None, clip_sample=None, steps_offset=None)
        if kind != "pndm":
            case(kind, 8, True, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    for eta in [0.5, 1.0]:
        case("ddim", 8, True, eta=eta)
    case("ddim", 8, True, clip_sample=True, clip_sample_range=0.7)
    case("ddpm", 8, True, clip_sample=True, clip_sample_range=0.7)
    for variance in ["fixed_small_log", "fixed_large"]:
        case("ddpm", 8, True, variance_type=variance)
    for steps in [4, 8, 50]:
        case("pndm", steps, steps == 8, skip_prk_steps=False)
    case("pndm", 8, True, skip_prk_steps=None, prediction_type="v_prediction")
    for spread in ["use_karras_sigmas", "use_exponential_sigmas"]:
        for spacing in ["linspace", "leading"]:
            case("euler", 8, True, timestep_spacing=spacing, **{spread: True})
    case("euler", 8, True, final_sigmas_type="sigma_min")

    out.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(shorten(row), separators=(",", ":")) for row in cases)
    (out / "cases.json").write_text(f"[\n{rows}\n]\n")

    tables = {
        "scaled_linear": STABLE_DIFFUSION,
        "linear": {},
        "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
        "scaled_linear.zero_snr": {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True},
    }
    tensors = {}
    for name, config in tables.items():
        scheduler = kinds["ddpm"](**config)
        tensors[f"{name}.betas"], tensors[f"{name}.alphas_cumprod"] = scheduler.betas, scheduler.alphas_cumprod
    scheduler = kinds["ddpm"](**STABLE_DIFFUSION)
    clean, noise, t = start().repeat(4, 1), Noise()().repeat(4, 1), torch.tensor([0, 1, 500, 999])
    tensors |= {"training.timesteps": t.to(torch.int32), "training.clean": clean, "training.noise": noise}
    tensors["training.noisy"] = scheduler.add_noise(clean, noise, t)
    tensors["training.velocity"] = scheduler.get_velocity(clean, noise, t)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out / "tables.safetensors")


def shorten(row):
    """f32 values need nine significant digits to come back as they were."""
    if isinstance(row, dict):
        return {k: v if k == "config" else shorten(v) for k, v in row.items()}
    if isinstance(row, list):
        return [shorten(v) for v in row]
    return float(f"{row:.9g}") if isinstance(row, float) else row
