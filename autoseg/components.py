"""Finding one-file components: the file's name is its name in a plan.

There is no registry: the listing reads file names, loading imports one file. A dotted name imports a module outside
the package.
"""

import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from autoseg.errors import AutosegError, PlanError, nearest


def available_components(package: ModuleType) -> list[str]:
    """Return the sorted names of the components in ``package``, importing none of them."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load_component(package: ModuleType, name: str, kind: str) -> ModuleType:
    """Import the component ``name`` of ``package``, or the outside module that a dotted name means.

    Raises:
        PlanError: there is no such component; the message names those that there are. Or an outside module has a
            mistake that keeps it from being imported.
    """
    names = available_components(package)
    if "." not in name and name not in names:
        raise PlanError(f"unknown {kind} {name!r}{nearest(name, names)}; available: {', '.join(names)}")
    if "." not in name:
        return importlib.import_module(f"{package.__name__}.{name}")
    here = _look_here()
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise PlanError(
                f"{kind} {name!r}: no module of that name in {here} or on PYTHONPATH; run this in the folder that "
                f"holds {name.split('.')[0]}/, or add that folder to PYTHONPATH"
            ) from None
        raise PlanError(f"{kind} {name!r}: cannot be imported: {_describe(error)}") from error


def is_outside_component(name: str) -> bool:
    """Return whether a dotted name means a module outside the package; it is not imported, but what holds it is."""
    _look_here()
    try:
        return "." in name and importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _look_here() -> str:
    """Let modules be imported from the current directory too, and return it.

    ``python -m`` would by itself; an installed command does not.
    """
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    return here


def require_members(module: ModuleType, names: Iterable[str], kind: str, page: str) -> None:
    """Refuse an outside module that lacks what components of its kind must define.

    Raises:
        PlanError: it lacks some.
    """
    if lacking := [name for name in names if not hasattr(module, name)]:
        raise PlanError(f"{kind} {module.__name__!r}: {module.__file__} defines no {', '.join(lacking)}; see {page}")


@contextmanager
def telling_mistakes(name: str, kind: str) -> Iterator[None]:
    """Tell a mistake in an outside module in one line, with its place there; one of this package keeps its traceback.

    Raises:
        PlanError: there is one.
    """
    try:
        yield
    except AutosegError:
        raise
    except Exception as error:
        if "." not in name:
            raise
        raise PlanError(f"{kind} {name!r}: {_describe(error, sys.modules[name].__file__)}") from error


def _describe(error: Exception, file: str | None = None) -> str:
    """Return an error in one line, with the last place that it passed through in ``file``, or at all."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = list(traceback.extract_tb(error.__traceback__))
    frames = [frame for frame in frames if frame.filename == file] or frames
    where = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"
