"""The reference plans in plans/ are what the planner makes of their fingerprints today."""

from pathlib import Path

import pytest

from autoseg.data.workspace import plan_names
from autoseg.errors import PlanError
from autoseg.fingerprint.fingerprint import read_fingerprint
from autoseg.plan.plan import read_plan
from autoseg.plan.planner import make_plan
from autoseg.plan.recipe import recipe_names

FOLDER = Path(__file__).resolve().parents[2] / "plans"


@pytest.mark.parametrize("dataset", ["Lits", "KiTS19", "Hippocampus", "ACDC"])
def test_reference_plans_are_current(dataset: str) -> None:
    fingerprint = read_fingerprint(FOLDER / dataset / "fingerprint.json")
    shipped = plan_names(FOLDER / dataset)
    assert {"unet", "nnunet", "attention_unet", "unetr", "nnunet_2d"} <= set(shipped)
    assert (FOLDER / dataset / "SOURCE.md").is_file()
    for name in recipe_names():
        if name not in shipped:
            with pytest.raises(PlanError):
                make_plan(name, fingerprint)
            continue
        expected, found = read_plan(FOLDER / dataset / f"{name}.json"), make_plan(name, fingerprint)
        # another version of torch may release a temporary a moment earlier
        assert found.estimate.memory_gb == pytest.approx(expected.estimate.memory_gb, rel=0.02)
        without = {"estimate": expected.estimate, "rationale": expected.rationale}
        assert found.model_copy(update=without) == expected, f"{dataset}/{name}: run python plans/make.py"
