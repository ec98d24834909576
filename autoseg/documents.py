"""Documents: frozen, strict, versioned JSON, written whole or not at all.

Every arrow between two stages is a document that a person can open. A document is closed (an unknown field
is refused with the nearest known name), complete as far as its class demands, and holds no NaN.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.errors import DocumentError, nearest


class Document(BaseModel):
    """A frozen record that refuses unknown fields, silent type conversions, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, ser_json_inf_nan="null")


D = TypeVar("D", bound=Document)


def read_document(path: Path, document_class: type[D]) -> D:
    """Read and validate the JSON file ``path``.

    Raises:
        DocumentError: the file is missing, is not JSON, or has fields that do not fit; all problems in one line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DocumentError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path}: cannot be read ({error})") from None
    return parse_document(text, document_class, where=str(path))


def parse_document(text: str, document_class: type[D], *, where: str) -> D:
    """Validate JSON ``text``; ``where`` names its origin in error messages."""
    try:
        return document_class.model_validate_json(text)
    except ValidationError as error:
        raise DocumentError(f"{where}: {_describe(error, document_class)}") from None


def write_document(path: Path, document: Document) -> None:
    """Write ``document`` as readable JSON, beside ``path`` first and then renamed onto it."""
    write_text(path, to_text(document))


def to_text(document: Document) -> str:
    """Return ``document`` as indented JSON in which lists of plain values stay on one line."""
    return format_json(document.model_dump(mode="json", by_alias=True)) + "\n"


def content_hash(document: Document) -> str:
    """Return the SHA-256 of the canonical JSON of ``document``, as 64 hexadecimal digits."""
    content = document.model_dump(mode="json", by_alias=True)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with write_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def write_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success rename it onto ``path``, else remove it.

    The temporary name ends like ``path`` does, since image writers choose their format by the ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.name)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def format_json(value: Any, indent: int = 0) -> str:
    """Return ``value`` as JSON, one field a line, with innermost lists on one line."""
    pad = "  " * (indent + 1)
    if isinstance(value, dict) and value:
        rows = [f"{pad}{json.dumps(key)}: {format_json(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + "  " * indent + "}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        rows = [pad + format_json(item, indent + 1) for item in value]
        return "[\n" + ",\n".join(rows) + "\n" + "  " * indent + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _describe(error: ValidationError, document_class: type[Document]) -> str:
    """Return every problem of ``error`` in one line, each with its dotted field."""
    return "; ".join(_describe_one(problem, document_class) for problem in error.errors())


def _describe_one(problem: Any, document_class: type[Document]) -> str:
    *parents, last = problem["loc"] or ("document",)
    field = ".".join(str(part) for part in (*parents, last))
    if problem["type"] == "extra_forbidden":
        owner = _class_at(document_class, parents)
        known = [f.alias or n for n, f in owner.model_fields.items()] if owner else []
        return f"unknown field {field!r}{nearest(str(last), known)}"
    if problem["type"] == "missing":
        return f"field {field!r} is missing"
    found = "" if isinstance(problem["input"], dict) else f", found {problem['input']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}{found}" if problem["loc"] else message


def _class_at(document_class: type[Document], location: list[Any]) -> type[Document] | None:
    """Return the document class of the field at ``location``, or None where it cannot be told."""
    current: Any = document_class
    for part in location:
        fields = getattr(current, "model_fields", {})
        current = getattr(fields.get(part), "annotation", None)
    return current if isinstance(current, type) and issubclass(current, Document) else None
