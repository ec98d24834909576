"""PNG and TIFF pictures: their spacing stands in ``dataset.json``, since what such files say about it is rarely
true.
"""

import json
import math
from pathlib import Path
from typing import Any

from autoseg.data.itk_files import read_itk
from autoseg.data.stored import Stored
from autoseg.errors import VolumeError

DESCRIPTION = "dataset.json"
ENDINGS = (".png", ".tif", ".tiff")
EXAMPLE = '"spacing": [0.5, 0.5]'


def read_picture(path: Path, *, as_float: bool) -> Stored:
    """Read a picture as a volume of one slice, or a TIFF of several pages as one of as many slices.

    The spacing is the entry ``spacing`` of ``dataset.json`` in the file's folder or the one above: mm (y, x) or (z, y,
    x); the slices of two numbers are 1 mm thick.

    Raises:
        VolumeError: SimpleITK cannot read it, it is in colour, or no spacing is given.
    """
    spacing = _declared_spacing(path)
    stored = read_itk(path, as_float=as_float)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    changes = {"spacing": spacing, "origin": (0.0, 0.0, 0.0), "direction": identity}
    return Stored(stored.array, stored.geometry.model_copy(update=changes))


def find_description(path: Path) -> Path | None:
    """Return the document that says the spacing of a picture, if there is one."""
    places = (folder / DESCRIPTION for folder in (path.parent, path.parent.parent))
    return next((place for place in places if place.is_file()), None)


def _declared_spacing(path: Path) -> tuple[float, float, float]:
    description = find_description(path)
    if description:
        return _spacing_in(description, path)
    found = f"stores no spacing, and there is no {DESCRIPTION} in its folder or the one above"
    raise VolumeError(path, found, f"put one there with {EXAMPLE} (mm, y and x)", kind="grid")


def _spacing_in(description: Path, path: Path) -> tuple[float, float, float]:
    try:
        content: Any = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VolumeError(path, f"{description} cannot be read ({error})", "correct it", kind="grid") from None
    value = content.get("spacing") if isinstance(content, dict) else None
    if isinstance(value, list) and len(value) in (2, 3) and all(_is_length(number) for number in value):
        z, y, x = [1.0, *value][-3:]
        return float(z), float(y), float(x)
    found = f"stores no spacing, and {description} gives {'none' if value is None else repr(value)}"
    raise VolumeError(path, found, f"add {EXAMPLE} (mm, y and x) to it", kind="grid")


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
