"""From the values that a sampler chose to a whole plan, and whether that fits the memory."""

import json
from typing import Any

from autoseg.documents import parse_document
from autoseg.errors import DocumentError
from autoseg.plan.plan import Plan
from autoseg.plan.planner import usable_gb
from autoseg.plan.variant import vary, with_estimate
from autoseg.tune.knobs import KNOBS, Assignments
from autoseg.tune.space import own_value, same

COMPONENTS = ("training.loss.name", "training.optimizer.name", "training.schedule.name", "network.architecture")
PATCH_KNOB = "patch_share"


def make_candidate(plan: Plan, name: str, values: dict[str, Any]) -> Plan:
    """Return the variant of ``plan`` that ``values`` of a space's parameters mean.

    Components are exchanged first and the network's configuration is changed last, once patch and spacing have derived
    it. What another component does not have (the momentum of AdamW) is left out; what is as in the plan is not set,
    so that the plan's own values give the plan itself.

    Raises:
        AutosegError: the values do not fit each other.
    """
    new = {key: value for key, value in values.items() if not same(value, own_value(plan, key))}
    named = {key: value for key, value in new.items() if key in COMPONENTS}
    fields = {key: value for key, value in new.items() if key not in named and key not in KNOBS}
    network = {key: value for key, value in fields.items() if key.startswith("network.config")}
    variant = _assign(plan, name, named)
    early = {key: value for key, value in fields.items() if key not in network}
    if PATCH_KNOB in new:
        early |= KNOBS[PATCH_KNOB].assign(variant, new[PATCH_KNOB])
    variant = _assign(variant, name, _existing(variant, early))
    variant = _assign(variant, name, _existing(variant, network))
    for key, knob in KNOBS.items():
        if key in new and key != PATCH_KNOB:
            variant = _assign(variant, name, knob.assign(variant, new[key]))
    return with_estimate(_with_reasons(variant, plan), plan)


def shorten(plan: Plan, epochs: int | None) -> Plan:
    """Return the plan trained for other epochs and with all else as it is, for a trial.

    The recipe for short trainings would replace the very values that are searched.
    """
    if epochs is None:
        return plan
    content = json.loads(plan.model_dump_json(by_alias=True))
    content["training"]["epochs"] = epochs
    return parse_document(json.dumps(content), Plan, where=f"plan {plan.name}")


def find_excess(candidate: Plan, plan: Plan) -> str | None:
    """Return why a candidate is too large for the memory budget of ``plan``, or None if it fits.

    A plan made by nnU-Net's formula may itself take more than the budget allows; that much is then allowed.
    """
    limit = max(usable_gb(plan.budget.memory_gb), plan.estimate.memory_gb)
    needed = candidate.estimate.memory_gb
    if needed <= limit:
        return None
    return f"needs {needed:.2f} GB to train, and the budget of {plan.budget.memory_gb:g} GB allows {limit:.2f}"


def _assign(plan: Plan, name: str, values: Assignments) -> Plan:
    return vary(plan, name, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def _with_reasons(variant: Plan, plan: Plan) -> Plan:
    """Return the variant without a reason for its network where that is the plan's after all."""
    if variant.network != plan.network:
        return variant
    others = {key: text for key, text in variant.rationale.items() if not key.startswith("network.config")}
    kept = {key: text for key, text in plan.rationale.items() if key.startswith("network.config")}
    return variant.model_copy(update={"rationale": {**others, **kept}})


def _existing(plan: Plan, values: Assignments) -> Assignments:
    """Return what the plan has fields for."""
    kept = {}
    for key, value in values.items():
        try:
            own_value(plan, key)
        except DocumentError:
            continue
        kept[key] = value
    return kept
