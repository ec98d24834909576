"""Finding one-file components: the file's name is its name in a plan.

There is no registry: the listing reads file names, loading imports one file. A dotted name imports a module outside
the package.
"""

import importlib
import pkgutil
from types import ModuleType

from autoseg.errors import PlanError, nearest


def available_components(package: ModuleType) -> list[str]:
    """Return the sorted names of the components in ``package``, importing none of them."""
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load_component(package: ModuleType, name: str, kind: str) -> ModuleType:
    """Import the component ``name`` of ``package``, or the outside module that a dotted name means.

    Raises:
        PlanError: there is no such component; the message names those that there are.
    """
    names = available_components(package)
    if "." not in name and name not in names:
        raise PlanError(f"unknown {kind} {name!r}{nearest(name, names)}; available: {', '.join(names)}")
    target = name if "." in name else f"{package.__name__}.{name}"
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name is not None and (target == error.name or target.startswith(error.name + ".")):
            raise PlanError(f"{kind} {name!r}: no module of that name can be imported; check PYTHONPATH") from None
        raise
