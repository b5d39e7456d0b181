"""A bundle with its weights in half precision and its model card, ready to go into the package.

python recipes/wenmai-tiny-zh/ship.py runs/tiny-zh/run src/wenmai/models/wenmai-tiny-zh
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from wenmai.atomic import writing_folder
from wenmai.bundle import WEIGHTS, bundle_folder

DROPOUT = 0.1
"""Of the model in use, as e5-small has it; it was trained without."""
CARD = Path(__file__).with_name("card.md")


def ship(run: Path, target: Path) -> int:
    """Writes the folder; returns the bytes of the weights."""
    source = bundle_folder(run)
    with writing_folder(target) as beside:
        for file in source.iterdir():
            if file.name not in (WEIGHTS, "README.md"):
                shutil.copy2(file, beside / file.name)
        weights = {name: tensor.half() for name, tensor in load_file(source / WEIGHTS).items()}
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()), "overflow in fp16"
        save_file(weights, beside / WEIGHTS, metadata={"format": "pt"})
        config = json.loads((beside / "config.json").read_text(encoding="utf-8"))
        config |= {
            "dtype": "float16",
            "hidden_dropout_prob": DROPOUT,
            "attention_probs_dropout_prob": DROPOUT,
        }
        (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copy2(CARD, beside / "README.md")
    return (target / WEIGHTS).stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder or its bundle")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    print(f"{ship(options.run, options.target) / 1e6:.1f} MB of weights in {options.target}")  # noqa: T201


if __name__ == "__main__":
    main()
