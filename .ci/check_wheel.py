"""Fail unless a wheel holds the package data that a user needs. Run: python .ci/check_wheel.py WHEEL."""

import sys
import zipfile
from pathlib import Path

WEIGHTS = "textray/weights/"
SHARED = ("config.json", "model.safetensors", "preprocess.json", "README.md", "LICENSE")
BUNDLES = {
    "sgseg_lite": (*SHARED, "model.onnx", "text_bank.safetensors"),
    "sentence_grounding_small": (*SHARED, "image.onnx", "text.onnx", "vocab.txt"),
}
MOST_MEGABYTES = 35  # one copy of each weight in half precision

root = Path(__file__).resolve().parent.parent / "src"
web = (root / "textray" / "serve" / "web").iterdir()
data = [*(root / "textray" / "configs").rglob("*.yaml"), *(root / "textray" / "data" / "splits").glob("*.json"), *web]
weights = {f"{WEIGHTS}{bundle}/{name}" for bundle, names in BUNDLES.items() for name in names}
expected = {p.relative_to(root).as_posix() for p in data} | {"textray/py.typed"} | weights

wheel = Path(sys.argv[1])
with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
missing = sorted(expected - set(names))
foreign = sorted(n for n in names if not n.startswith(("textray/", "textray-")) or n.endswith((".pyc", ".ckpt")))
megabytes = wheel.stat().st_size / 1e6
if missing or foreign or megabytes > MOST_MEGABYTES:
    sys.exit(f"{wheel.name}: missing {missing}, foreign {foreign}, {megabytes:.1f} MB of at most {MOST_MEGABYTES}")
sys.stdout.write(f"{wheel.name}: {len(names)} files, {megabytes:.1f} MB\n")
