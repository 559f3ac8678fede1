"""Tables and steps of diffusers' schedulers, with a closed-form model so that no weights are needed.

The closed forms (computed in f64, rounded to f32; i counts the 48 elements):
    start(i)     = 1.2 sin(1.7 i + 0.3), times the scheduler's init_noise_sigma
    model(x,t,i) = 0.8 tanh(x) + 0.2 cos(0.01 t + i)
    noise(k, i)  = 1.1 cos(2.3 i + 0.7 k), k counting the draws
"""

import inspect
import json
import math

import diffusers
import torch
from safetensors.torch import save_file

COUNT = 48
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
KARRAS = {"use_karras_sigmas": True}
# The short names: a class of diffusers and what the name adds to its configuration.
KINDS = {
    "ddpm": (diffusers.DDPMScheduler, {}),
    "ddim": (diffusers.DDIMScheduler, {}),
    "pndm": (diffusers.PNDMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_karras": (diffusers.EulerDiscreteScheduler, KARRAS),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "lms": (diffusers.LMSDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, KARRAS),
    "dpmpp_2m_sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
}
# Schedulers whose class knows no `sample` prediction: the model's clean sample is turned into noise before they see it.
NO_SAMPLE = ["pndm", "euler_a"]


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


def noise_of(scheduler, clean, t, x):
    if isinstance(scheduler, diffusers.PNDMScheduler):
        alpha = scheduler.alphas_cumprod[t]
        return (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
    return (x - clean) / scheduler.sigmas[scheduler.step_index]


def run(scheduler, eta, as_noise, skip):
    """The loop of the text-to-image pipeline, or of image-to-image without the first `skip` steps. There the start is the clean sample, and draw 0 its noise."""
    noise = Noise()
    inspect.getmodule(type(scheduler)).randn_tensor = noise
    begin = skip * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    # A timestep that occurs twice would otherwise be taken for the second.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    # Two dimensions, as DDPM compares the channels of its arguments to find a learned variance.
    if skip:
        x = scheduler.add_noise(start().unsqueeze(0), noise().unsqueeze(0), timesteps[:1])
    else:
        x = (start() * scheduler.init_noise_sigma).unsqueeze(0)
    for t in timesteps:
        scaled = scheduler.scale_model_input(x, t)
        output = model(scaled[0], float(t)).unsqueeze(0)
        if as_noise:
            output = noise_of(scheduler, output, t, x)
        extra = {"eta": eta} if eta else {}
        x = scheduler.step(output, t, x, **extra).prev_sample
    return x[0]


def make_scheduler_cases(out):
    torch.set_num_threads(1)
    base = {**STABLE_DIFFUSION, "num_train_timesteps": 1000, "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False, "skip_prk_steps": True}
    cases = {kind: [] for kind in KINDS}

    def case(kind, steps, walk, eta=0.0, skip=0, **changes):
        scheduler_class, added = KINDS[kind]
        config = {k: v for k, v in {**base, **changes}.items() if v is not None}
        as_noise = kind in NO_SAMPLE and config.get("prediction_type") == "sample"
        scheduler = scheduler_class.from_config({**config, **added, **({"prediction_type": "epsilon"} if as_noise else {})})
        scheduler.set_timesteps(steps)
        row = {"steps": steps, "config": config, "eta": eta, **({"skip": skip} if skip else {})}
        row["init_noise_sigma"] = float(scheduler.init_noise_sigma)
        row["timesteps"] = [float(t) for t in scheduler.timesteps]
        if hasattr(scheduler, "sigmas"):
            row["sigmas"] = [float(s) for s in scheduler.sigmas]
        if walk:
            row["final"] = run(scheduler, eta, as_noise, skip).tolist()
            assert all(math.isfinite(x) for x in row["final"]), row
        cases[kind].append(row)

    def both_spreads(kind, **changes):
        for spread in ["use_karras_sigmas", "use_exponential_sigmas"]:
            for spacing in ["linspace", "leading"]:
                case(kind, 8, True, timestep_spacing=spacing, **{spread: True}, **changes)

    for kind in KINDS:
        for spacing in ["leading"] if kind == "lcm" else ["leading", "linspace", "trailing"]:
            for steps in [5, 10, 50]:
                case(kind, steps, False, timestep_spacing=spacing)
            for prediction in ["epsilon", "v_prediction", "sample"]:
                case(kind, 8, True, timestep_spacing=spacing, prediction_type=prediction)
        # The class's own default spacing, a step count that does not divide 1000, and one step.
        for steps in [1, 7, 30]:
            case(kind, steps, True)
        case(kind, 8, True, beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
        case(kind, 8, True, beta_schedule="squaredcos_cap_v2")
        case(kind, 8, True, trained_betas=[0.001 + 0.00001 * i for i in range(100)], num_train_timesteps=100)
        case(kind, 8, True, set_alpha_to_one=None, clip_sample=None, steps_offset=None)
        # The class's own betas.
        case(kind, 8, True, beta_schedule=None, beta_start=None, beta_end=None)
        # PNDM, Heun and LMS take no notice.
        case(kind, 8, True, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
        # Image to image: the run starts in the middle.
        for prediction in ["epsilon", "v_prediction"]:
            case(kind, 8, True, skip=3, prediction_type=prediction)
        for steps, skip in [(8, 1), (8, 7), (20, 6)]:
            case(kind, steps, True, skip=skip)
    for skip in [1, 5]:
        case("pndm", 8, True, skip=skip, skip_prk_steps=False)
    case("pndm", 8, True, set_alpha_to_one=True)
    for kind in ["ddim", "euler", "dpmpp_2m"]:
        case(kind, 8, True, timestep_spacing="leading", steps_offset=7)
    for eta in [0.5, 1.0]:
        case("ddim", 8, True, eta=eta)
    for kind in ["ddim", "ddpm", "heun", "lcm"]:
        case(kind, 8, True, clip_sample=True, clip_sample_range=0.7)
    for variance in ["fixed_small_log", "fixed_large"]:
        case("ddpm", 8, True, variance_type=variance)
    for steps in [4, 8, 50]:
        case("pndm", steps, steps == 8, skip_prk_steps=False)
    for prediction in ["v_prediction", "sample"]:
        case("pndm", 8, True, skip_prk_steps=None, prediction_type=prediction)
    for kind in ["euler", "heun", "lms", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]:
        both_spreads(kind)
        for spread in ["use_karras_sigmas", "use_exponential_sigmas"]:
            case(kind, 8, True, sigma_min=0.05, sigma_max=10.0, **{spread: True})
    for kind in ["euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]:
        case(kind, 8, True, final_sigmas_type="sigma_min")
    # They take no notice.
    case("euler_a", 8, True, use_karras_sigmas=True, final_sigmas_type="sigma_min")
    case("lms", 8, True, final_sigmas_type="sigma_min")

    case("dpmpp_2m_karras", 8, True, beta_schedule="squaredcos_cap_v2", final_sigmas_type="sigma_min")
    for kind, orders in {"dpmpp_2m": [1, 3], "dpmpp_2m_sde": [1], "unipc": [1, 3]}.items():
        for order in orders:
            case(kind, 8, True, solver_order=order)
            case(kind, 20, True, solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min")
    for kind in ["dpmpp_2m", "dpmpp_2m_sde"]:
        case(kind, 8, True, solver_type="heun", final_sigmas_type="sigma_min", lower_order_final=False)
        case(kind, 20, True, solver_type="heun", euler_at_final=True, final_sigmas_type="sigma_min")
        case(kind, 8, True, lambda_min_clipped=-2.0)
        case(kind, 8, True, lambda_min_clipped=-2.0, timestep_spacing="leading")
    case("unipc", 8, True, solver_type="bh1", final_sigmas_type="sigma_min")
    case("unipc", 8, True, solver_type="bh1", final_sigmas_type="sigma_min", lower_order_final=False, solver_order=3)
    case("unipc", 8, True, use_karras_sigmas=True, final_sigmas_type="sigma_min", sigma_min=0.05)
    case("unipc", 8, True, disable_corrector=[0, 2, 3])
    for steps in [1, 2, 4]:
        case("lcm", steps, True)
    case("lcm", 4, True, original_inference_steps=30, timestep_scaling=0.1, prediction_type="v_prediction")

    out.mkdir(parents=True, exist_ok=True)
    for kind, rows in cases.items():
        lines = ",\n".join(json.dumps(shorten(row), separators=(",", ":")) for row in rows)
        (out / f"{kind}.json").write_text(f"[\n{lines}\n]\n")

    tables = {
        "scaled_linear": STABLE_DIFFUSION,
        "linear": {},
        "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
        "scaled_linear.zero_snr": {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True},
    }
    tensors = {}
    for name, config in tables.items():
        scheduler = diffusers.DDPMScheduler(**config)
        tensors[f"{name}.betas"], tensors[f"{name}.alphas_cumprod"] = scheduler.betas, scheduler.alphas_cumprod
    scheduler = diffusers.DDPMScheduler(**STABLE_DIFFUSION)
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
