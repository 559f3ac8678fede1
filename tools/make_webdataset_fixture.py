"""Makes crates/selma-dataset/tests/fixtures/webdataset.tar with Python's tarfile, and webdataset.json, what Hugging Face
`datasets` reads from it.

    pip install datasets pillow
    python tools/make_webdataset_fixture.py

The archive has what Python writes and others do not: PAX headers for names that are long or not ASCII.
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path

from datasets import load_dataset
from PIL import Image

FOLDER = Path(__file__).parents[1] / "crates/selma-dataset/tests/fixtures"
SAMPLES = {
    "000000": "a red cube on a table",
    "photos.2024/000001": "ein Würfel\nauf einem Tisch",
    "猫/" + "very-long-name-" * 10: "a cat",
}


def picture(grey):
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


def main():
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "webdataset.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, (key, text) in enumerate(SAMPLES.items()):
            for ending, content in [("png", picture(number)), ("txt", text.encode())]:
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("webdataset", data_files={"train": str(path)}, split="train", cache_dir=cache)
        read = [{"key": row["__key__"], "text": row["txt"], "grey": row["png"].getpixel((0, 0))[0]} for row in rows]
    assert [(row["key"], row["text"]) for row in read] == list(SAMPLES.items()), read
    text = json.dumps(read, ensure_ascii=False, indent=1)
    (FOLDER / "webdataset.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
