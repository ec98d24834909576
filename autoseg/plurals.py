"""Numbers of things in sentences: ``1 case``, ``2 cases``."""


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number and what it counts: ``1 case``, ``2 cases``.

    Args:
        number: of them.
        one: the words after a 1.
        many: those after any other number, where it is not enough to append an s (``is there``, ``are there``).
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
