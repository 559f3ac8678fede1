"""Opens a dataset folder with Hugging Face `datasets`, as training scripts do, and prints its columns and first row.

    pip install datasets pillow
    python tools/check_dataset.py runs/mini/images/coco

Ends with status 1 if a row lacks its image or its text, or if the rows are not those of metadata.jsonl in its order.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from datasets import load_dataset


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with open(folder / "metadata.jsonl", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    with tempfile.TemporaryDirectory() as cache:
        dataset = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=cache)
        print(f"{len(dataset)} rows")
        for name, feature in dataset.features.items():
            print(f"{name}: {feature}")
        if len(dataset) != len(rows):
            sys.exit(f"expected {len(rows)} rows, found {len(dataset)}")
        for number, (row, found) in enumerate(zip(rows, dataset), start=1):
            if found["image"].convert("RGB").size[0] < 1 or found["text"] != row["text"]:
                sys.exit(f"row {number}: expected {row}, found {found}")
            made = row.get("provenance")
            if made is not None and found["provenance"]["seed"] != made["seed"]:
                sys.exit(f"row {number}: expected seed {made['seed']}, found {found['provenance']['seed']}")
        if rows:
            print(dataset[0])


if __name__ == "__main__":
    main()
