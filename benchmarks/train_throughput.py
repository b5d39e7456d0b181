"""How fast an encoder learns: wenmai beside the Trainer of transformers and the fit loop of bert4torch.

    python benchmarks/train_throughput.py --json benchmarks/results/train-throughput.json
    python benchmarks/train_throughput.py --quick
    python benchmarks/train_throughput.py --read benchmarks/results/train-throughput.json

Named entities in newspaper text of all lengths, token classification, random encoders of two sizes. In every round
each runner trains in a process of its own, one after the other, the order turning from round to round; a ratio is that
of the real tokens a second of the same round. All start from the same weights, see every row once, take the same number
of optimizer steps, and have the same AdamW, clipping, dropout (0.1, attention too), precision and threads. What differs
is how rows are put into batches and what is done with them.

* ``ours``: wenmai with a budget of tokens a step, its default, set so that the steps are as many as the others'
* ``ours_examples``: wenmai with the others' number of rows in every step
* ``ours_padded``: wenmai with padding left in the encoder (``train.padding_free: off``)
* ``trainer_default``, ``trainer_grouped``, ``trainer_same_batches``: see ``peers/hf_trainer.py``
* ``bert4torch``: see ``peers/bert4torch_fit.py``

Needs the extra ``bench``. Runs that the JSON file already holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
PEERS = ("trainer_default", "trainer_grouped", "bert4torch")
MODULES = {
    "ours": "ours",
    "ours_examples": "ours",
    "ours_padded": "ours",
    "trainer_default": "hf_trainer",
    "trainer_grouped": "hf_trainer",
    "trainer_same_batches": "hf_trainer",
    "bert4torch": "bert4torch_fit",
}
STEPS = {"tiny": 4, "small": 16, "base": 3}
EXAMPLES = {"tiny": 16, "small": 32, "base": 16}
"""Rows of a step; fewer for the large model, so that a CPU gets through several steps of all lengths."""
HELDOUT = {"tiny": 40, "small": 200, "base": 64}
RATES = {"tiny": 1e-3, "small": 3e-4, "base": 1e-4}
SAME_LOSS = 1e-3
"""How far the losses of untrained models may lie apart: a proof that all runners compute the same function."""

Run = dict[str, Any]
Page = dict[str, Any]


def measured(page: Page, folder: Path, save: Any) -> None:
    """Does what the page's settings ask for and its runs don't hold yet."""
    settings = page["settings"]
    for size in settings["sizes"]:
        steps = settings["steps"] or STEPS[size]
        examples = settings["examples_per_step"] or EXAMPLES[size]
        workload = folder / size
        spec = {
            "folder": str(workload),
            "size": size,
            "rows": steps * examples,
            "steps": steps,
            "heldout": HELDOUT[size],
            "seeds": settings["seeds"],
        }
        wanted = [
            (number, runner)
            for number in range(settings["rounds"])
            for runner in turned(settings["runners"], number)
            if not any(
                (run["size"], run["round"], run["runner"]) == (size, number, runner) for run in page["runs"]
            )
        ]
        if not wanted:
            continue
        call(folder, "workload", [write(folder / "spec.json", spec)], settings)
        page["workloads"][size] = json.loads((workload / "meta.json").read_text(encoding="utf-8"))
        for number in dict.fromkeys(number for number, _ in wanted):
            peak = float(
                call(
                    folder,
                    "matmul",
                    [str(settings["threads"]), settings["device"], settings["precision"]],
                    settings,
                )
            )
            for _, runner in (pair for pair in wanted if pair[0] == number):
                page["runs"].append(
                    {
                        "size": size,
                        "round": number,
                        "runner": runner,
                        "seed": settings["seeds"][number % len(settings["seeds"])],
                        "peak_gflops": peak,
                        **one_run(folder, workload, runner, number, size, page),
                    }
                )
                print(json.dumps(page["runs"][-1]), flush=True)
                save()


def one_run(folder: Path, workload: Path, runner: str, number: int, size: str, page: Page) -> Run:
    settings, meta = page["settings"], page["workloads"][size]
    seed = str(settings["seeds"][number % len(settings["seeds"])])
    with tempfile.TemporaryDirectory(dir=folder) as output:
        job = {
            "runner": runner,
            "folder": str(workload),
            "output": output,
            "seed": int(seed),
            "threads": settings["threads"],
            "examples_per_step": meta["rows"] // meta["steps"],
            "learning_rate": RATES[size],
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "tokens_per_step": None if runner == "ours_examples" else meta["tokens_per_step"][seed],
            "padding_free": "off" if runner == "ours_padded" else "auto",
            "device": settings["device"],
            "precision": settings["precision"],
        }
        result = folder / "result.json"
        call(folder, MODULES[runner], [write(folder / "job.json", job), str(result)], settings)
        found: Run = json.loads(result.read_text(encoding="utf-8"))
    assert found["tokens"] == meta["tokens"], (runner, found["tokens"], meta["tokens"])
    assert found["steps"] == meta["steps"], (runner, found["steps"])
    return found


def call(folder: Path, module: str, arguments: list[str], settings: dict[str, Any]) -> str:
    """Runs one of the modules of ``peers`` in a process of its own; what it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": str(settings["threads"]),
        # threads that spin while they wait multiply whatever else the machine does at the moment
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", f"peers.{module}", *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"peers.{module} {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def turned(runners: list[str], by: int) -> list[str]:
    by %= len(runners)
    return [*runners[by:], *runners[:by]]


def summary(page: Page) -> None:
    """Adds ``ratios``, ``rows`` and ``losses`` to the page, from its runs."""
    sizes = list(dict.fromkeys(run["size"] for run in page["runs"]))
    runners = list(dict.fromkeys(run["runner"] for run in page["runs"]))
    page["ratios"] = {
        runner: {size: ratio(page, size, "ours", runner) for size in sizes}
        for runner in runners
        if runner != "ours"
    }
    page["rows"] = [
        row(page, size, runner) for size in sizes for runner in runners if runs_of(page, size, runner)
    ]
    page["losses"] = {
        size: {runner: loss_beside_ours(page, size, runner) for runner in runners if runner != "ours"}
        for size in sizes
    }


def ratio(page: Page, size: str, fast: str, slow: str) -> dict[str, Any] | None:
    """How many times as many real tokens a second, by rounds."""
    first, second = runs_of(page, size, fast), runs_of(page, size, slow)
    both = sorted(first.keys() & second.keys())
    values = [first[n]["tokens_per_second"] / second[n]["tokens_per_second"] for n in both]
    if not values:
        return None
    return {
        "ratio": round(statistics.median(values), 3),
        "low": round(min(values), 3),
        "high": round(max(values), 3),
        "rounds": len(values),
    }


def runs_of(page: Page, size: str, runner: str) -> dict[int, Run]:
    return {run["round"]: run for run in page["runs"] if (run["size"], run["runner"]) == (size, runner)}


def row(page: Page, size: str, runner: str) -> dict[str, Any]:
    runs = list(runs_of(page, size, runner).values())
    work = flops(page["workloads"][size])

    def middle(values: list[float]) -> float:
        return statistics.median(values)

    phases = [run["phases"] for run in runs if run["phases"]]
    names = list(dict.fromkeys(name for one in phases for name in one))
    totals = [sum(one.values()) for one in phases]
    return {
        "size": size,
        "runner": runner,
        "tokens_per_second": round(middle([run["tokens_per_second"] for run in runs]), 1),
        "padding": round(middle([run["padding"] for run in runs]), 4),
        "computed_per_real": round(1 / (1 - middle([run["padding"] for run in runs])), 3),
        "memory_mb": round(middle([run["memory_mb"] for run in runs])),
        "steps": runs[0]["steps"],
        "tokens": runs[0]["tokens"],
        "share_of_peak": round(middle([work / run["seconds"] / 1e9 / run["peak_gflops"] for run in runs]), 4),
        "peak_gflops": round(middle([run["peak_gflops"] for run in runs]), 1),
        "loss": round(statistics.fmean(losses(page, size, runner).values()), 4),
        "time_shares": {
            name: round(
                middle([one.get(name, 0.0) / total for one, total in zip(phases, totals, strict=True)]), 4
            )
            for name in names
        },
    }


def flops(workload: dict[str, Any]) -> float:
    """Floating-point operations that the real tokens need: forward and twice as many backward.

    A multiply-add is two. Per token and layer 12 H² weights in matrices (attention 4 H², feed-forward 8 H²), and the
    classifier; per row and layer scores and their use, 4 T² H. Embeddings, norms, activations and the optimizer count
    nothing.
    """
    layers, hidden, tags = workload["layers"], workload["hidden"], len(workload["tags"])
    weights = layers * 12 * hidden**2 + hidden * tags
    return float(6 * weights * workload["tokens"] + 12 * layers * hidden * workload["squared_lengths"])


def losses(page: Page, size: str, runner: str, key: str = "loss_after") -> dict[int, float]:
    """Held-out loss by seed."""
    return {run["seed"]: run[key] for run in runs_of(page, size, runner).values()}


def loss_beside_ours(page: Page, size: str, runner: str) -> dict[str, Any]:
    """Whether both learn the same: the difference of the mean losses beside the spread over seeds.

    ``equal`` where the means lie no farther apart than the losses of one runner do from each other (with a single
    seed: None); ``same_start`` where the untrained models agree.
    """
    ours, theirs = losses(page, size, "ours"), losses(page, size, runner)
    starts, other = losses(page, size, "ours", "loss_before"), losses(page, size, runner, "loss_before")
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return {"seeds": 0}
    spread = max(max(one.values()) - min(one.values()) for one in (ours, theirs))
    difference = statistics.fmean([ours[seed] - theirs[seed] for seed in seeds])
    return {
        "seeds": len(seeds),
        "difference": round(difference, 5),
        "spread": round(spread, 5),
        "equal": abs(difference) <= spread if len(seeds) > 1 else None,
        "same_start": all(abs(starts[seed] - other[seed]) <= SAME_LOSS for seed in seeds),
    }


def markdown(page: Page) -> str:
    """The page's numbers as tables, one a size."""
    settings = page["settings"]
    parts = []
    for size in dict.fromkeys(row["size"] for row in page["rows"]):
        work = page["workloads"][size]
        rows = [row for row in page["rows"] if row["size"] == size]
        parts.append(
            f"**{size}** ({work['layers']} layers, {work['hidden']} wide): {work['tokens']:,} real tokens in "
            f"{work['rows']:,} rows up to {work['longest']}, {settings['threads']} threads, {settings['device']}, "
            f"{settings['precision']}; best matrix multiplication {rows[0]['peak_gflops']:.0f} GFLOP/s"
        )
        lines = [
            "| runner | steps | real tokens/s | ours is faster by (range, rounds) | padding | computed per real token "
            "| peak memory | share of peak | held-out loss | difference to ours (spread over seeds) |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for one in rows:
            found = page["ratios"].get(one["runner"], {}).get(size)
            faster = (
                f"{found['ratio']:.2f}x ({found['low']:.2f} to {found['high']:.2f}, {found['rounds']})"
                if found
                else ""
            )
            beside = page["losses"][size].get(one["runner"])
            compared = (
                f"{-beside['difference']:+.4f} ({beside['spread']:.4f}, {beside['seeds']} seeds)"
                f"{unequal(beside)}{'' if beside['same_start'] else ', OTHER START'}"
                if beside and beside["seeds"]
                else ""
            )
            lines.append(
                f"| {one['runner']} | {one['steps']} | {one['tokens_per_second']:,.0f} | {faster} "
                f"| {100 * one['padding']:.1f} % "
                f"| {one['computed_per_real']:.2f} | {one['memory_mb']:,} MB | {100 * one['share_of_peak']:.1f} % "
                f"| {one['loss']:.4f} | {compared} |"
            )
        parts.append("\n".join(lines))
        shares = next((one["time_shares"] for one in rows if one["runner"] == "ours"), {})
        if shares:
            told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            parts.append(f"Where the time of `ours` goes: {told}.")
    return "\n\n".join(parts)


def unequal(beside: dict[str, Any]) -> str:
    if beside["equal"] is not False:
        return ""
    return ", LOWER" if beside["difference"] > 0 else ", HIGHER"


def versions() -> dict[str, str]:
    found = {}
    for name in ("wenmai", "torch", "transformers", "bert4torch", "torch4keras"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=STEPS, default=["small", "base"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help=f"optimizer steps of one run; default: {STEPS}")
    parser.add_argument("--examples-per-step", type=int, help=f"rows of a step; default: {EXAMPLES}")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="taken in turn")
    parser.add_argument("--runners", nargs="+", choices=MODULES, default=["ours", *PEERS])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--json", type=Path, help="read what is done from this file, and add to it")
    parser.add_argument("--read", type=Path, help="only show what this file holds")
    parser.add_argument("--quick", action="store_true", help="a tiny encoder, one round: under a minute")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            "sizes", "rounds", "steps", "examples_per_step", "threads", "seeds", "runners", "device", "precision",
        )
    }  # fmt: skip
    if "bert4torch" in options.runners and find_spec("bert4torch") is None and not options.read:
        raise SystemExit(
            'bert4torch is not installed: pip install "wenmai[bench]", or leave it out of --runners'
        )
    if options.quick:
        settings |= {"sizes": ["tiny"], "rounds": 1, "seeds": [1]}
    page: Page = {
        "benchmark": "train_throughput",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "versions": versions(),
        "settings": settings,
        "workloads": {},
        "runs": [],
    }
    source = options.read or options.json
    if source and source.is_file():
        earlier = json.loads(source.read_text(encoding="utf-8"))
        page["workloads"], page["runs"] = earlier["workloads"], earlier["runs"]
        fixed = ("steps", "examples_per_step", "threads", "seeds", "device", "precision")
        if options.read:
            page = earlier
        elif any(earlier["settings"][key] != settings[key] for key in fixed):
            raise SystemExit(
                f"{source} was measured with other settings: {earlier['settings']}; take another file"
            )

    def save() -> None:
        summary(page)
        if options.json:
            beside = options.json.with_suffix(".tmp")
            beside.write_text(json.dumps(page, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            beside.replace(options.json)

    if not options.read:
        with tempfile.TemporaryDirectory() as folder:
            measured(page, Path(folder), save)
        save()
    summary(page)
    print(markdown(page))


if __name__ == "__main__":
    main()
