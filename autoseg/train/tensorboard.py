"""events/: what TensorBoard shows of a training."""

from typing import Any

from autoseg.documents import to_text
from autoseg.train.examples import draw_examples
from autoseg.train.log import Beginning, EpochReport, make_record
from autoseg.train.progress import mean_of

FOLDER = "events"
HYPER_PARAMETERS = ("preprocessing.spacing", "network.architecture", "training", "budget")
"""Parts of the plan that TensorBoard's table of hyper-parameters compares runs by."""

METRIC = "dice/mean"
TAGS = {
    "train_loss": "loss/training",
    "validation_loss": "loss/validation",
    "learning_rate": "learning_rate",
    "seconds": "time/seconds",
    "seconds_waiting": "time/seconds_waiting",
    "peak_memory_gb": "memory_gb/device",
    "peak_host_memory_gb": "memory_gb/host",
    "energy_kj": "energy_kj",
}
"""Field of a record in metrics.jsonl to the name that loggers show it under."""

EXAMPLES = "validation patch: image, reference, prediction"


class TensorBoard:
    """Writes scalars of each epoch, slices of a validation patch in some, the plan, and what the run runs on."""

    name = "TensorBoard events"

    def begin(self, beginning: Beginning) -> None:
        """Open a file of events, in which what was written of epochs after the checkpoint counts no more."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._board = SummaryWriter(str(beginning.folder / FOLDER), purge_step=len(beginning.history) + 1)
        self._describe(beginning)

    def add_epoch(self, report: EpochReport) -> None:
        """Write an epoch."""
        for tag, value in make_scalars(make_record(report)).items():
            self._board.add_scalar(tag, value, report.epoch)
        if report.examples is not None:
            self._board.add_image(EXAMPLES, draw_examples(report.examples), report.epoch, dataformats="HWC")

    def rest(self) -> None:
        """Let TensorBoard see what was written."""
        self._board.flush()

    def end(self) -> None:
        """Close the file."""
        self._board.close()

    def _describe(self, beginning: Beginning) -> None:
        from torch.utils.tensorboard.summary import hparams

        for name, document in (("plan", beginning.plan), ("run", beginning.record)):
            self._board.add_text(name, f"```json\n{to_text(document)}```", len(beginning.history))
        # SummaryWriter.add_hparams would make a run of its own for them
        values = hyper_parameters(beginning.plan.model_dump(mode="json"))
        for summary in hparams(values, {METRIC: None}):  # type: ignore[no-untyped-call]
            self._board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def make_scalars(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that are known in a record of metrics.jsonl, by the names that loggers show them under."""
    values = {tag: record.get(key) for key, tag in TAGS.items()} | {METRIC: mean_of(record)}
    values |= {f"dice/{name}": value for name, value in record["validation_dice"].items()}
    return {tag: value for tag, value in values.items() if value is not None}


def hyper_parameters(plan: dict[str, Any]) -> dict[str, Any]:
    """Return numbers and texts of a plan by their dotted fields; lists become text."""
    flat: dict[str, Any] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{path}.{key}" if path else key, item)
        elif value is not None and any(f"{path}.".startswith(f"{part}.") for part in HYPER_PARAMETERS):
            flat[path] = value if isinstance(value, bool | int | float | str) else _list_text(value)

    add("", plan)
    return flat


def _list_text(values: list[Any]) -> str:
    """Return a list as text; of components, such as augmentations, the names."""
    return ", ".join(str(one["name"]) if isinstance(one, dict) and "name" in one else str(one) for one in values)
