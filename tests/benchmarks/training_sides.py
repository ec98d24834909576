"""One side of ``training_speed.py`` in a process of its own: autoseg's trainer, or nnU-Net's.

    python training_sides.py {autoseg,nnunet} {prepare,serve,train} SPEC

SPEC is a JSON file that ``training_speed.py`` writes. ``serve`` trains blocks of iterations as it is told on standard
input, one line each (``loop N`` with the side's own loader, ``bare N`` on one batch again and again), and answers each
with a line of JSON. Only autoseg's side imports autoseg, only nnU-Net's nnunetv2.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

Spec = dict[str, Any]
Block = Callable[[str, int], None]


def main() -> None:
    side, action, path = sys.argv[1:4]
    spec = json.loads(Path(path).read_text())
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tools print goes to the log
    folders = {f"nnUNet_{name}": str(Path(spec["peer_folder"]) / name) for name in ("raw", "preprocessed", "results")}
    os.environ.update(folders, nnUNet_n_proc_DA=str(spec["workers"]))
    if action == "serve":
        with ExitStack() as stack:
            opened = open_autoseg(spec, stack) if side == "autoseg" else open_nnunet(spec)
            serve(spec, *opened, replies)
    elif action == "train":
        (train_autoseg if side == "autoseg" else train_nnunet)(spec)
    else:
        prepare_nnunet(spec)
    # nnU-Net's loading processes are daemons that may hang while they are joined
    sys.stderr.flush()
    os._exit(0)


def serve(spec: Spec, run: Block, parameters: int, precision: str, replies: Any) -> None:
    """Answer with what was built, then run blocks until standard input ends."""
    import torch

    cuda = spec["device"] != "cpu"

    def answer(**values: Any) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    answer(parameters=parameters, precision=precision, threads=torch.get_num_threads(), torch=torch.__version__)
    for line in sys.stdin:
        kind, count = line.split()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = perf_counter()
        run(kind, int(count))
        if cuda:
            torch.cuda.synchronize()
        seconds = (perf_counter() - started) / int(count)
        peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
        answer(seconds=seconds, peak_memory_gb=peak)


def open_autoseg(spec: Spec, stack: ExitStack) -> tuple[Block, int, str]:
    """Return what runs a block of the loop that ``autoseg_train`` runs."""
    import torch

    from autoseg.train.benchmark import open_blocks
    from autoseg.train.machine import Machine

    run, machine = _open_run(spec), Machine(torch.device(spec["device"]), spec["workers"])
    blocks = stack.enter_context(
        open_blocks(run.plan, run.store, run.fold, machine, length=spec["block"], count=spec["rounds"] + 1)
    )
    parameters = sum(weights.numel() for weights in blocks.state.network.parameters())

    def run_block(kind: str, count: int) -> None:
        blocks.run_loop() if kind == "loop" else blocks.run_bare()
        blocks.state.epoch += kind == "loop"

    return run_block, parameters, f"{blocks.setup.precision}, {blocks.network}, augmented on the {blocks.place}"


def train_autoseg(spec: Spec) -> None:
    """Train the fold, going on where it was, then predict its validation cases."""
    import torch

    from autoseg.launch.fold import train, validate
    from autoseg.train.machine import Machine

    run, device = _open_run(spec), torch.device(spec["device"])
    train(run, Machine(device, spec["workers"]), on_event=lambda event: print(event, file=sys.stderr))
    if not run.metrics_path.is_file():
        validate(run, device=device, num_workers=1)


def _open_run(spec: Spec) -> Any:
    from autoseg.data.dataset import find_dataset
    from autoseg.data.workspace import Workspace
    from autoseg.launch.fold import open_fold

    workspace = Workspace(Path(spec["workspace"]))
    return open_fold(workspace, find_dataset(spec["dataset"], workspace), spec["plan"], spec["fold"])


def prepare_nnunet(spec: Spec) -> None:
    """Measure, plan and preprocess with nnU-Net, then give its plans autoseg's patch, batch and network."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([spec["number"]], num_processes=2)
    plan_experiments([spec["number"]])
    folder = Path(spec["peer_folder"]) / "preprocessed" / spec["folder"]
    path = folder / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration.update(spec["configuration"])
    configuration["architecture"]["arch_kwargs"].update(spec["architecture"])
    path.write_text(json.dumps(plans, indent=1))
    preprocess([spec["number"]], configurations=["3d_fullres"], num_processes=[2])
    (folder / "splits_final.json").write_text(json.dumps(spec["splits"]))


def open_nnunet(spec: Spec) -> tuple[Block, int, str]:
    """Return what runs a block of nnU-Net's own training step."""
    trainer = _make_trainer(spec)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    fixed = next(trainer.dataloader_train)
    parameters = sum(weights.numel() for weights in trainer.network.parameters())

    def run_block(kind: str, count: int) -> None:
        for _ in range(count):
            trainer.train_step(next(trainer.dataloader_train) if kind == "loop" else fixed)

    compiled = "compiled" if trainer._do_i_compile() else "not compiled"
    precision = "fp32" if trainer.device.type == "cpu" else "fp16"
    return run_block, parameters, f"{precision}, {compiled}, augmented by processes"


def train_nnunet(spec: Spec) -> None:
    """Train the fold, going on where it was, write its loss by epoch, then predict its validation cases."""
    trainer = _make_trainer(spec)
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    if final.is_file():
        trainer.load_checkpoint(str(final))
    else:
        if latest.is_file():
            trainer.load_checkpoint(str(latest))
        _run_epochs(trainer, Path(trainer.output_folder) / "losses.jsonl")
    if not (Path(trainer.output_folder) / "validation" / "summary.json").is_file():
        trainer.perform_actual_validation(save_probabilities=False)


def _run_epochs(trainer: Any, log: Path) -> None:
    trainer.on_train_start()
    kept = log.read_text().splitlines()[: trainer.current_epoch] if log.is_file() else []
    for epoch in range(trainer.current_epoch, trainer.num_epochs):
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        started = perf_counter()
        outputs = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(trainer.num_iterations_per_epoch)]
        trainer.on_train_epoch_end(outputs)
        trainer.on_validation_epoch_start()
        validated = [
            trainer.validation_step(next(trainer.dataloader_val)) for _ in range(trainer.num_val_iterations_per_epoch)
        ]
        trainer.on_validation_epoch_end(validated)
        seconds = perf_counter() - started
        loss = sum(float(output["loss"]) for output in outputs) / len(outputs)
        kept.append(json.dumps({"epoch": epoch + 1, "train_loss": loss, "seconds": seconds}))
        log.write_text("\n".join(kept) + "\n")  # before the checkpoint, so that it never lacks an epoch
        trainer.on_epoch_end()
    trainer.on_train_end()


def _make_trainer(spec: Spec) -> Any:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = Path(spec["peer_folder"]) / "preprocessed" / spec["folder"]
    plans, dataset = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    device = torch.device(spec["device"])
    if device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True  # as nnUNetv2_train does
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", spec["fold"], dataset, device)
    trainer.num_epochs = spec.get("epochs", trainer.num_epochs)
    trainer.num_iterations_per_epoch = spec.get("iterations_per_epoch", trainer.num_iterations_per_epoch)
    trainer.num_val_iterations_per_epoch = spec.get("validation_iterations", trainer.num_val_iterations_per_epoch)
    trainer.save_every = 1
    trainer.initialize()
    return trainer


if __name__ == "__main__":
    main()
