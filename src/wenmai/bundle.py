"""A bundle: one folder with all that is needed to predict, and at the same time a normal Hugging Face model folder.

``config.json``, ``model.safetensors`` and the tokenizer files are the backbone's, so ``AutoModel`` and
``AutoTokenizer`` open the folder without wenmai. The head's weights lie in the same file under ``wenmai_head.``;
``wenmai.json`` names the task, its configuration and its labels. Nothing in it is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wenmai.atomic import recover_folder, unwritable, writing_folder
from wenmai.backbones.load import HEAD_PREFIX, load_folder
from wenmai.backbones.shipped import shipped_folder, shipped_models
from wenmai.backbones.tokenizer import Normalization, Tokenizer
from wenmai.errors import BundleError, UserError
from wenmai.heads.multi_task import MultiTaskHead
from wenmai.tasks import TASKS
from wenmai.tasks.model import Model
from wenmai.tasks.multi_task import MultiTask
from wenmai.tasks.task import Task
from wenmai.version import __version__

FORMAT = 1
MANIFEST = "wenmai.json"
WEIGHTS = "model.safetensors"


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
    with writing_folder(folder) as beside:
        model.backbone.save_config(beside)
        tokenizer.save(beside)
        head = {
            HEAD_PREFIX + name: tensor.detach().contiguous()
            for name, tensor in model.head.state_dict().items()
        }
        weights = {
            name: tensor.cpu() for name, tensor in {**model.backbone.state_for_saving(), **head}.items()
        }
        try:
            save_file(weights, beside / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise unwritable(folder, OSError(str(error))) from error
        manifest = {
            "format": FORMAT,
            "wenmai": __version__,
            "task": task.meta(),
            "normalize": tokenizer.normalize,
        }
        (beside / MANIFEST).write_text(
            json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        (beside / "README.md").write_text(model_card(task), encoding="utf-8")


def model_card(task: Task[Any, Any]) -> str:
    """The ``README.md`` of a bundle: what the model is for, what it answers, how it is opened."""
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

The encoder alone opens with `transformers.AutoModel` and `transformers.AutoTokenizer`.
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
    task, normalize = _read_manifest(folder)
    try:
        backbone, tokenizer = load_folder(folder)
        tokenizer.normalize = normalize
        model = Model(backbone, task.build_head(backbone))
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(HEAD_PREFIX)]  # noqa: SIM118, not a dict
            model.head.load_state_dict(
                {name.removeprefix(HEAD_PREFIX): file.get_tensor(name) for name in names}
            )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"{folder}: is damaged ({_first_line(error)}): train or copy it again") from error
    except BundleError:
        raise
    except UserError as error:
        raise BundleError(f"{folder}: can't be opened: {error}; train or copy it again") from error
    return Bundle(folder, task, tokenizer, model.eval())


def _read_manifest(folder: Path) -> tuple[Task[Any, Any], Normalization]:
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
        return task_type(task_type.Config.model_validate(meta["config"]), meta["labels"]), manifest[
            "normalize"
        ]
    except KeyError as error:
        raise BundleError(f"{path}: has no {error}: train or copy it again") from error
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise BundleError(f"{path}: is damaged ({_first_line(error)}): train or copy it again") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
