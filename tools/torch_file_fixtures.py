"""Makes small PyTorch checkpoints for selma-diffusion's reader, in each form that it takes or refuses.

    python tools/torch_file_fixtures.py [--out crates/selma-diffusion/tests/fixtures/torch]
"""

import argparse
import collections
import os
import zipfile
from pathlib import Path

import numpy
import torch


class ModelCheckpoint:
    """Stands for the callbacks that training frameworks save; its module is not there when the file is read."""

    def __init__(self):
        self.best = numpy.float64(0.25)


class Harmful:
    def __reduce__(self):
        return os.system, ("echo this must never be printed",)


def tensors():
    a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return collections.OrderedDict(
        a=a,
        # Two names of one storage, a transpose, and a part of it.
        tied=a,
        turned=a.t(),
        column=a[:, 1],
        half=torch.tensor([0.5, -2.0], dtype=torch.float16),
        brain=torch.tensor([[1.5], [3.0]], dtype=torch.bfloat16),
        count=torch.tensor(7),
        parameter=torch.nn.Parameter(torch.full((2,), 0.125)),
        empty=torch.zeros(0, 4),
    )


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=root / "crates/selma-diffusion/tests/fixtures/torch")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.save(tensors(), out / "plain.bin")
    torch.save(tensors(), out / "legacy.bin", _use_new_zipfile_serialization=False)
    lightning = {
        "epoch": 3,
        "global_step": 875000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": tensors(),
        "callbacks": {ModelCheckpoint: ModelCheckpoint(), "monitor": [numpy.float64(1.5), None, True, {1, 2}, b"bytes"]},
        "lr": 1e-4,
        "hyper_parameters": argparse.Namespace(width=8, path=Path("x")),
        "big": 1 << 100,
    }
    torch.save(lightning, out / "lightning.ckpt")
    torch.save({"a": torch.zeros(1), "odd": ModelCheckpoint()}, out / "not_a_tensor.bin")
    torch.save({"a": torch.zeros(1), "b": Harmful()}, out / "harmful.bin")
    torch.save({"a": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)}, out / "quantised.bin")
    with zipfile.ZipFile(out / "plain.bin") as plain, zipfile.ZipFile(out / "big_endian.bin", "w") as big:
        for name in plain.namelist():
            big.writestr(name, b"big" if name.endswith("byteorder") else plain.read(name))
    with zipfile.ZipFile(out / "plain.bin") as plain, zipfile.ZipFile(out / "compressed.bin", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))


if __name__ == "__main__":
    main()
