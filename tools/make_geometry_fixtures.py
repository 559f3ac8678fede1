"""Makes the fixtures of how pictures are resized, cut out and put into buckets.

    python tools/make_geometry_fixtures.py [--images crates/selma-image/tests/fixtures] [--geometry crates/selma-dataset/tests/fixtures]

Written with Pillow 13.0, numpy 2.4, torchvision 0.29.2.

    <images>/picture.png, <filter>-<width>x<height>.png   a picture, and the same resized by Pillow
    <geometry>/geometry.json
        squares   `side` and the size of a `picture`; the size to which torchvision's Resize scales it; top and left of its CenterCrop; sizes are width, height
        buckets   `resolution`, `min_size`, `max_size`, `step`, and the list of buckets of kohya's sd-scripts (`make_bucket_resolutions`, library/model_util.py), by its rules
        fits      the same with `no_upscale` and `picture`: `resized` and `bucket` of `BucketManager.select_bucket` (library/train_util.py), by its rules
    <geometry>/picture.png, view-<name>.png   a picture, and what torchvision's transforms make of it in the order of diffusers' train_text_to_image_lora_sdxl.py

`--sd-scripts DIR` names a checkout of kohya's sd-scripts and compares the rules with its functions, without the packages that it needs.
"""

import argparse
import ast
import json
import math
import random
from pathlib import Path

import numpy as np
import PIL.Image
from torchvision import transforms

FILTERS = {name.lower(): PIL.Image.Resampling[name] for name in ["BILINEAR", "BICUBIC", "LANCZOS"]}
# Smaller, larger, one side alone, a single pixel, far smaller. Of the last three, Pillow 13 does the rows of the first before its columns, and those of the others after them.
SIZES = [(18, 12), (40, 24), (7, 5), (19, 30), (8, 13), (1, 1), (38, 26), (3, 31), (18, 11), (18, 10), (20, 3)]


def make_picture(width, height):
    """Noise and a gradient: every weight of a filter shows, and both ends of the range are passed."""
    noise = np.random.default_rng(7).normal(size=(height, width, 3)) * 90
    values = noise + np.linspace(0, 255, width)[None, :, None]
    return PIL.Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def make_images(out):
    out.mkdir(parents=True, exist_ok=True)
    picture = make_picture(19, 13)
    picture.save(out / "picture.png")
    for name, resample in FILTERS.items():
        for width, height in SIZES:
            picture.resize((width, height), resample).save(out / f"{name}-{width}x{height}.png")


def make_squares():
    sizes = [(640, 480), (480, 640), (512, 512), (513, 512), (1023, 767), (300, 200), (199, 301), (37, 1999), (1, 9), (2048, 1025), (333, 1000)]
    for side in [64, 512, 1024]:
        for width, height in sizes:
            # The sizes do not depend on what is in the picture.
            resized = transforms.Resize(side)(PIL.Image.new("L", (width, height)))
            corner = centre_corner(resized, side)
            yield {"side": side, "picture": [width, height], "resized": list(resized.size), "top_left": corner}


def centre_corner(image, side):
    """Where CenterCrop cuts, read off pixels that hold their column or row."""
    columns = np.broadcast_to(np.arange(image.width, dtype=np.int32)[None, :], (image.height, image.width))
    rows = np.broadcast_to(np.arange(image.height, dtype=np.int32)[:, None], (image.height, image.width))
    crop = transforms.CenterCrop(side)
    return [crop(PIL.Image.fromarray(values.copy())).getpixel((0, 0)) for values in [rows, columns]]


def bucket_list(resolution, low, high, step):
    """One bucket for each width, of the largest height that the area leaves, both ways round, and the square."""
    square = resolution // step * step
    found = {(square, square)}
    for width in range(low, high + 1, step):
        height = min(high, resolution * resolution // width // step * step)
        if height >= low:
            found |= {(width, height), (height, width)}
    return sorted(found)


def select(width, height, sizes, resolution, step, no_upscale):
    """The size to which a picture is scaled, and its bucket."""
    aspect = width / height
    if not no_upscale:
        bucket = (width, height) if (width, height) in sizes else min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))
        scale = bucket[1] / height if aspect > bucket[0] / bucket[1] else bucket[0] / width
        return (int(width * scale + 0.5), int(height * scale + 0.5)), bucket
    resized = (width, height)
    if width * height > resolution**2:
        exact_width = math.sqrt(resolution**2 * aspect)
        exact_height = resolution**2 / exact_width
        cut = lambda side: int(side + 0.5) // step * step
        by_width, by_height = cut(exact_width), cut(exact_height)
        error_by_width = abs(by_width / cut(by_width / aspect) - aspect)
        error_by_height = abs(cut(by_height * aspect) / by_height - aspect)
        if error_by_width < error_by_height:
            resized = (by_width, int(by_width / aspect + 0.5))
        else:
            resized = (int(by_height * aspect + 0.5), by_height)
    return resized, tuple(side // step * step for side in resized)


SETTINGS = [(512, 256, 1024, 64), (1024, 256, 1024, 64), (1024, 512, 2048, 32), (768, 256, 1536, 64), (500, 64, 1024, 64), (64, 32, 128, 8)]


def make_fits():
    rng = random.Random(11)
    for resolution, low, high, step in SETTINGS:
        sizes = bucket_list(resolution, low, high, step)
        pictures = [(512, 512), (1024, 1024), (1920, 1080), (1080, 1920), (4000, 300), sizes[0], sizes[-1]]
        pictures += [(rng.randint(step, 4 * resolution), rng.randint(step, 4 * resolution)) for _ in range(12)]
        for width, height in pictures:
            for no_upscale in [False, True]:
                resized, bucket = select(width, height, sizes, resolution, step, no_upscale)
                if min(bucket) > 0:
                    yield {"resolution": resolution, "min_size": low, "max_size": high, "step": step, "no_upscale": no_upscale, "picture": [width, height], "resized": resized, "bucket": bucket}


def function(path, *names):
    """Functions and classes of a Python file by their names, without what else it imports."""
    tree = ast.parse(path.read_text())
    scope = {"math": math, "random": random, "np": np, "Tuple": tuple}
    found = [node for node in tree.body if getattr(node, "name", None) in names]
    exec(compile(ast.Module(found, []), path.name, "exec"), scope)
    return [scope[name] for name in names]


def compare(scripts, geometry):
    (make,) = function(scripts / "library/model_util.py", "make_bucket_resolutions")
    (manager,) = function(scripts / "library/train_util.py", "BucketManager")
    for case in geometry["buckets"]:
        side = case["resolution"]
        assert make((side, side), case["min_size"], case["max_size"], case["step"]) == case["sizes"], case
    for case in geometry["fits"]:
        side = case["resolution"]
        buckets = manager(case["no_upscale"], (side, side), case["min_size"], case["max_size"], case["step"])
        buckets.set_predefined_resos(bucket_list(side, case["min_size"], case["max_size"], case["step"]))
        bucket, resized, _ = buckets.select_bucket(*case["picture"])
        assert (bucket, resized) == (case["bucket"], case["resized"]), case
    print(f"{len(geometry['buckets'])} lists and {len(geometry['fits'])} pictures agree with {scripts}")


def make_views(out):
    """A picture in its middle, mirrored or not."""
    picture = make_picture(36, 22)
    picture.save(out / "picture.png")
    for name, flip in {"plain": False, "mirrored": True}.items():
        view = transforms.Resize(15)(picture)
        view = transforms.RandomHorizontalFlip(p=1.0)(view) if flip else view
        transforms.CenterCrop(15)(view).save(out / f"view-{name}.png")


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=root / "crates/selma-image/tests/fixtures")
    parser.add_argument("--geometry", type=Path, default=root / "crates/selma-dataset/tests/fixtures")
    parser.add_argument("--sd-scripts", type=Path)
    args = parser.parse_args()
    make_images(args.images)
    args.geometry.mkdir(parents=True, exist_ok=True)
    make_views(args.geometry)
    lists = [{"resolution": r, "min_size": low, "max_size": high, "step": step, "sizes": bucket_list(r, low, high, step)} for r, low, high, step in SETTINGS]
    geometry = {"squares": list(make_squares()), "buckets": lists, "fits": list(make_fits())}
    if args.sd_scripts:
        compare(args.sd_scripts, geometry)
    lines = [f'"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]" for name, cases in geometry.items()]
    (args.geometry / "geometry.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
