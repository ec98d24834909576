"""A single thing is told in the singular, and an unusual plural is spelt out."""

from autoseg.plurals import count


def test_one_is_singular_and_all_else_plural() -> None:
    assert [count(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [count(number, "fold is", "folds are") for number in (1, 3)] == ["1 fold is", "3 folds are"]
