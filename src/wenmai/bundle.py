"""A bundle: one folder with all that is needed to predict, and at the same time a normal Hugging Face model folder.

``config.json``, ``model.safetensors`` and the tokenizer files are the backbone's, so ``AutoModel`` and
``AutoTokenizer`` open the folder without wenmai. The head's weights lie in the same file under ``wenmai_head.``;
``wenmai.json`` names the task, its configuration and its labels. Nothing in it is unpickled.

LoRA is merged into the encoder's weights. Prompts and prefixes, which can't be, lie beside them under
``wenmai_adapter.``: the encoder opens without them. A bundle of ``adapter.save: adapter`` has the adapter and the head
alone, in ``adapter.safetensors``, and says where the encoder is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wenmai.atomic import recover_folder, unwritable, writing_folder
from wenmai.backbones.adapter_settings import AdapterConfig
from wenmai.backbones.adapters import (
    adapter_state,
    attach_adapter,
    load_adapter_state,
    reference_to,
    referred_backbone,
)
from wenmai.backbones.load import ADAPTER_PREFIX, HEAD_PREFIX, load_folder
from wenmai.backbones.shipped import shipped_folder, shipped_models
from wenmai.backbones.tokenizer import Tokenizer
from wenmai.errors import BundleError, UserError
from wenmai.heads.multi_task import MultiTaskHead
from wenmai.tasks import TASKS
from wenmai.tasks.model import Model
from wenmai.tasks.multi_task import MultiTask
from wenmai.tasks.task import Task
from wenmai.version import __version__

FORMAT = 2
"""The first to hold adapters; a bundle without one is written in format 1, which earlier versions read."""
MANIFEST = "wenmai.json"
WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS = "adapter.safetensors"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; the model is in evaluation mode."""

    folder: Path
    task: Task[Any, Any]
    tokenizer: Tokenizer
    model: Model


def part_of(bundle: Bundle, name: str | None) -> Bundle:
    """One task of a bundle of several, as if it were alone; the weights are shared. None: the bundle as it is.

    Raises:
        BundleError: there is no such task.
    """
    if name is None:
        return bundle
    tasks = bundle.task.tasks if isinstance(bundle.task, MultiTask) else {}
    if name not in tasks:
        held = (
            f"holds the tasks {', '.join(tasks)}"
            if tasks
            else f"holds one task, {bundle.task.name}, without a name"
        )
        raise BundleError(f"{bundle.folder}: has no task {name!r}; it {held}")
    head = bundle.model.head
    assert isinstance(head, MultiTaskHead)
    model = Model(bundle.model.backbone, head.heads[name]).eval()
    return Bundle(bundle.folder, tasks[name], bundle.tokenizer, model)


def save_bundle(folder: Path, task: Task[Any, Any], model: Model, tokenizer: Tokenizer) -> None:
    """Writes a bundle in place of what is there, at once.

    Raises:
        UserError: the folder can't be written.
    """
    backbone = model.backbone
    adapter = backbone.adapter
    alone = adapter is not None and adapter.save == "adapter"
    kept = adapter if adapter is not None and (alone or adapter.in_front) else None
    with writing_folder(folder) as beside:
        if not alone:
            backbone.save_config(beside)
        tokenizer.save(beside)
        head = {
            HEAD_PREFIX + name: tensor.detach().contiguous()
            for name, tensor in model.head.state_dict().items()
        }
        own = {} if alone else backbone.state_for_saving()
        beside_them = {} if kept is None else adapter_state(backbone)
        weights = {name: tensor.cpu() for name, tensor in {**own, **beside_them, **head}.items()}
        try:
            save_file(weights, beside / (ADAPTER_WEIGHTS if alone else WEIGHTS), metadata={"format": "pt"})
        except SafetensorError as error:
            raise unwritable(folder, OSError(str(error))) from error
        manifest = {
            "format": 1 if kept is None else FORMAT,
            "wenmai": __version__,
            "task": task.meta(),
            "normalize": tokenizer.normalize,
            **({} if kept is None else {"adapter": kept.model_dump(mode="json")}),
            **({"encoder": reference_to(backbone)} if alone else {}),
        }
        (beside / MANIFEST).write_text(
            json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        (beside / "README.md").write_text(model_card(task, kept), encoding="utf-8")


def model_card(task: Task[Any, Any], adapter: AdapterConfig | None = None) -> str:
    """The ``README.md`` of a bundle: what the model is for, what it answers, how it is opened."""
    alone = "The encoder alone opens with `transformers.AutoModel` and `transformers.AutoTokenizer`."
    if adapter is not None and adapter.save == "adapter":
        alone = (
            f"It holds a {adapter.method} adapter and the head; where the encoder lies is in `{MANIFEST}`."
        )
    elif adapter is not None:
        alone += f"\nIts {adapter.method} vectors are in the same file; only wenmai puts them in front."
    labels = f"\n\nLabels: {', '.join(task.labels)}." if task.labels else ""
    return f"""---
library_name: wenmai
tags: [wenmai, {task.name}]
---

# {task.name.replace("_", " ").capitalize()} model

Trained with wenmai {__version__}. Its configuration is in `{MANIFEST}`.{labels}

```python
import wenmai

model = wenmai.load("path/to/this/folder")
model(["文本"])
```

{alone}
"""


def has_bundle(path: Path) -> bool:
    """Whether :func:`bundle_folder` finds one."""
    return shipped_folder(path) is not None or any(
        (folder / MANIFEST).is_file() for folder in (path, path / "bundle")
    )


def bundle_folder(path: Path) -> Path:
    """The bundle that a path means: a shipped model's by its name, itself, or the ``bundle/`` of a run folder.

    Raises:
        BundleError: there is none.
    """
    if shipped := shipped_folder(path):
        return shipped
    for folder in (path, path / "bundle"):
        recover_folder(folder)
        if (folder / MANIFEST).is_file():
            return folder
    if not path.is_dir():
        names = "".join(f", or {name}" for name in shipped_models())
        raise BundleError(f"{path}: no such folder; give the folder of a run or its bundle/{names}")
    raise BundleError(
        f"{path}: is no bundle, {MANIFEST} is missing in it and in bundle/; a run has its bundle after the first "
        "evaluation, or at its end"
    )


def load_bundle(path: Path) -> Bundle:
    """Opens a bundle, the bundle of a run folder, or a shipped model.

    Raises:
        BundleError: it is missing, damaged, or was written by a newer version.
    """
    folder = bundle_folder(path)
    task, manifest = _read_manifest(folder)
    try:
        referred = manifest.get("encoder")
        backbone, tokenizer = load_folder(folder) if referred is None else referred_backbone(referred)
        tokenizer.normalize = manifest["normalize"]
        weights = _weights_of_ours(folder / (WEIGHTS if referred is None else ADAPTER_WEIGHTS))
        if "adapter" in manifest:
            backbone.adapter = AdapterConfig.model_validate(manifest["adapter"])
            with torch.random.fork_rng(devices=[]):  # what is drawn is overwritten at once
                attach_adapter(backbone, tokenizer)
            load_adapter_state(backbone, weights)
        task.read_vocabulary(tokenizer)
        model = Model(backbone, task.build_head(backbone))
        model.head.load_state_dict(
            {
                name.removeprefix(HEAD_PREFIX): tensor
                for name, tensor in weights.items()
                if name.startswith(HEAD_PREFIX)
            }
        )
    except (OSError, SafetensorError, RuntimeError, KeyError, ValidationError) as error:
        raise BundleError(f"{folder}: is damaged ({_first_line(error)}): train or copy it again") from error
    except BundleError:
        raise
    except UserError as error:
        raise BundleError(f"{folder}: can't be opened: {error}; train or copy it again") from error
    return Bundle(folder, task, tokenizer, model.eval())


def _weights_of_ours(path: Path) -> dict[str, Tensor]:
    """The weights of the head, and of an adapter beside the encoder."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith((HEAD_PREFIX, ADAPTER_PREFIX))]  # noqa: SIM118, not a dict
        return {name: file.get_tensor(name) for name in names}


def _read_manifest(folder: Path) -> tuple[Task[Any, Any], dict[str, Any]]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, meta = manifest["format"], manifest["task"]
        if version > FORMAT:
            raise BundleError(
                f"{path}: format {version} was written by wenmai {manifest.get('wenmai')}, this is {__version__}, "
                f"which reads formats up to {FORMAT}: upgrade wenmai"
            )
        known: dict[str, type[Task[Any, Any]]] = {**TASKS, MultiTask.name: MultiTask}
        if meta["name"] not in known:
            raise BundleError(f"{path}: task {meta['name']!r} is unknown; known are {sorted(known)}")
        task_type = known[meta["name"]]
        task = task_type(task_type.Config.model_validate(meta["config"]), meta["labels"])
        return task, {"normalize": manifest["normalize"], **manifest}
    except KeyError as error:
        raise BundleError(f"{path}: has no {error}: train or copy it again") from error
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise BundleError(f"{path}: is damaged ({_first_line(error)}): train or copy it again") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
