"""The option ``--logger``: which service is told, and what it says in return."""

from autoseg.cli._command import Service, console


def read_service(option: Service | None) -> str | None:
    """Return the name of the service.

    Raises:
        TrainingError: its package is not installed.
    """
    if option is None:
        return None
    from autoseg.train.tracking import check_service

    service: str = option.value
    check_service(service)
    return service


def show_notice(text: str) -> None:
    """Print where a task is seen, or that nothing can be told."""
    console().print(text, markup=False, soft_wrap=True)
