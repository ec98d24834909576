"""What differs between plans."""

from autoseg.compare.settings import differing_settings


def test_only_differences_are_listed_with_readable_values() -> None:
    first = {
        "preprocessing": {"spacing": [1.0, 0.5, 0.5], "normalization": [{"scheme": "ct"}]},
        "network": {"config": {"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}},
        "training": {
            "augmentation": [{"name": "mirror", "axes": [0]}, {"name": "gamma", "p": 0.3}],
            "deep_supervision": True,
        },
        "rationale": {"x": "a"},
    }
    second = {
        "preprocessing": {"spacing": [2.0, 0.5, 0.5], "normalization": [{"scheme": "zscore"}]},
        "network": {"config": {"hidden": 768}},
        "training": {
            "augmentation": [{"name": "mirror", "axes": [0]}, {"name": "gamma", "p": 0.1}],
            "deep_supervision": True,
        },
        "rationale": {"x": "b"},
    }
    assert differing_settings({"a": first, "b": second}) == {
        "preprocessing.spacing": {"a": "1 × 0.5 × 0.5", "b": "2 × 0.5 × 0.5"},
        "preprocessing.normalization.0.scheme": {"a": "ct", "b": "zscore"},
        "network.config.strides": {"a": "1 × 1 × 1, 2 of (2 × 2 × 2)", "b": ""},
        "network.config.hidden": {"a": "", "b": "768"},
        "training.augmentation.gamma.p": {"a": "0.3", "b": "0.1"},
    }
    assert differing_settings({"a": first}) == {}
