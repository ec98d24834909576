"""The paragraph on methods for a paper, with versions and citations."""

from collections.abc import Iterator, Sequence

from autoseg.compare.resampling import NUM_RESAMPLES, NUM_RESAMPLES_LARGE
from autoseg.compare.runs import Runs
from autoseg.compare.summary import METRICS, Summary
from autoseg.compare.words import join
from autoseg.fingerprint.fingerprint import Fingerprint
from autoseg.plurals import count

CITATIONS = {
    "unet": "Çiçek Ö et al. 3D U-Net: learning dense volumetric segmentation from sparse annotation. MICCAI 2016.",
    "nnunet": "Isensee F et al. nnU-Net: a self-configuring method for deep learning-based biomedical image "
    "segmentation. "
    "Nature Methods 18, 203-211 (2021).",
    "attention_unet": "Oktay O et al. Attention U-Net: learning where to look for the pancreas. MIDL 2018.",
    "unetr": "Hatamizadeh A et al. UNETR: transformers for 3D medical image segmentation. WACV 2022.",
    "swin_unetr": "Hatamizadeh A et al. Swin UNETR: Swin transformers for semantic segmentation of brain tumors in "
    "MRI images. "
    "BrainLes 2021.",
    "segresnet": "Myronenko A. 3D MRI brain tumor segmentation using autoencoder regularization. BrainLes 2018.",
    "mednext": "Roy S et al. MedNeXt: transformer-driven scaling of ConvNets for medical image segmentation. MICCAI "
    "2023.",
    "nnunet_resenc": "Isensee F et al. nnU-Net revisited: a call for rigorous validation in 3D medical image "
    "segmentation. "
    "MICCAI 2024.",
}
"""By the beginning of an architecture's name; an architecture without an entry is named without a citation."""
STATISTICS = {
    "bootstrap": "Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 82, 171-185 (1987).",
    "expanded": "Hesterberg T. What teachers should know about the bootstrap. Am Stat 69, 371-386 (2015).",
    "wilcoxon": "Wilcoxon F. Individual comparisons by ranking methods. Biometrics Bulletin 1, 80-83 (1945).",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 6, 65-70 (1979).",
    "surface_dice": "Nikolov S et al. Deep learning to achieve clinically applicable segmentation of head and neck "
    "anatomy for "
    "radiotherapy. arXiv:1809.04430 (2018).",
    "ranking": "Wiesenfarth M et al. Methods and open-source toolkit for analyzing and visualizing challenge results. "
    "Sci Rep 11, 2369 (2021).",
    "metrics": "Maier-Hein L et al. Metrics reloaded: recommendations for image analysis validation. "
    "Nature Methods 21, 195-212 (2024).",
}


def write_methods(summary: Summary, runs: Runs, fingerprint: Fingerprint | None) -> tuple[str, tuple[str, ...]]:
    """Return the paragraph, with numbers in brackets, and the references that they stand for."""
    references: list[str] = []

    def cite(*sources: str | None) -> str:
        known = [source for source in sources if source]
        references.extend(source for source in known if source not in references)
        numbers = ", ".join(str(references.index(source) + 1) for source in known)
        return f" [{numbers}]" if numbers else ""

    parts = [_data_sentence(summary, fingerprint)]
    if any(plan.architecture != "unknown" for plan in summary.plans):
        networks = sorted({plan.architecture for plan in summary.plans if plan.architecture != "unknown"})
        cited = [f"{network}{cite(citation_of(network))}" for network in networks]
        parts += [_training_sentence(summary, cited), _versions_sentence(runs)]
    metrics = [METRICS[metric].title + (cite(STATISTICS["surface_dice"]) if metric == "surface_dice" else "")
               for metric in summary.metrics]  # fmt: skip
    if metrics:
        parts.append(f"Segmentations were scored by {join(metrics)}{cite(STATISTICS['metrics'])}.")
    if summary.comparisons:
        parts += _statistics_sentences(summary, cite(STATISTICS["bootstrap"], STATISTICS["expanded"]),
                                       cite(STATISTICS["wilcoxon"]), cite(STATISTICS["holm"]))  # fmt: skip
    if summary.rules:
        parts.append(
            "Plans were ranked by mean, by mean rank and by the number of significant wins, and the stability of the "
            "ranks "
            f"was assessed on bootstrap samples of the cases{cite(STATISTICS['ranking'])}."
        )
    return " ".join(part for part in parts if part), tuple(references)


def citation_of(architecture: str) -> str | None:
    """Return the citation whose key is the longest beginning of the architecture's name."""
    keys = [key for key in CITATIONS if architecture.startswith(key)]
    return CITATIONS[max(keys, key=len)] if keys else None


def _data_sentence(summary: Summary, fingerprint: Fingerprint | None) -> str:
    plans, cases = count(len(summary.plans), "plan"), count(summary.num_common_cases, "case")
    data = ""
    if fingerprint is not None:
        data = f" ({count(len(fingerprint.cases), 'labelled case')}; {', '.join(fingerprint.channels)})"
    regions = f"{count(len(summary.regions), 'region')}: {', '.join(summary.regions)}"
    return f"We compared {plans} on the dataset {summary.dataset}{data}, on the {cases} that all have ({regions})."


def _training_sentence(summary: Summary, networks: Sequence[str]) -> str:
    lengths = sorted({plan.cost.iterations for plan in summary.plans if plan.cost.iterations})
    iterations = f" for {' or '.join(f'{length:,}' for length in lengths)} iterations" if lengths else ""
    folds = sorted({str(fold) for plan in summary.plans for fold in plan.folds})
    return (
        f"The networks {join(list(networks))} were planned from one fingerprint of the data and trained by one loop "
        f"with autoseg {summary.autoseg}{iterations}; each case was segmented by a network that had not seen it "
        f"(cross-validation, {'fold' if len(folds) == 1 else 'folds'} {', '.join(folds)})."
    )


def _versions_sentence(runs: Runs) -> str:
    told = dict.fromkeys(text for run in runs.runs if run.state == "finished" and (text := describe_run(run.record)))
    return f"Trainings ran on {'; '.join(told)}." if told else ""


def describe_run(record: dict[str, object]) -> str:
    """Return device, precision and versions of a run."""
    versions = record.get("versions")
    parts: Iterator[str] = (f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else iter(())
    return ", ".join([*(str(record[key]) for key in ("device", "precision") if key in record), *parts])


def _statistics_sentences(summary: Summary, bootstrap: str, wilcoxon: str, holm: str) -> list[str]:
    return [
        f"Every plan was compared with {summary.baseline} case by case. Mean differences are given with 95 % intervals "
        f"from {NUM_RESAMPLES:,} bootstrap resamples of the cases ({NUM_RESAMPLES_LARGE:,} above 1,000 cases; "
        f"bias-corrected and accelerated, expanded for small samples{bootstrap}).",
        "A difference was called real if the interval excluded zero and both the two-sided Wilcoxon signed-rank "
        f"test{wilcoxon} and the sign-flip permutation test of the mean gave p < 0.05 after Holm's correction{holm}, "
        "and negligible if the interval lay within one Dice point of zero.",
    ]
