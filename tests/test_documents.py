"""Documents: strict, closed, written whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import Field

from autoseg.documents import (
    Document,
    content_hash,
    format_json,
    parse_document,
    read_document,
    to_text,
    write_beside,
    write_document,
    write_text,
)
from autoseg.errors import DocumentError


class _Inner(Document):
    threshold: float
    sizes: tuple[int, ...]


class _Outer(Document):
    schema_: str = Field(alias="schema")
    inner: _Inner
    note: str | None


GOOD = {"schema": "test.1", "inner": {"threshold": 0.5, "sizes": [1, 2]}, "note": None}


def _parse(content: object) -> _Outer:
    return parse_document(json.dumps(content), _Outer, where="file.json")


def test_a_document_survives_writing_and_reading(tmp_path: Path) -> None:
    document = _parse(GOOD)
    path = tmp_path / "folder" / "file.json"
    write_document(path, document)
    assert read_document(path, _Outer) == document
    assert json.loads(path.read_text()) == GOOD
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": "x"}, "unknown field 'notes' .did you mean 'note'"),
        ({"inner": {"threshold": 0.5, "sizes": [1], "treshold": 1}}, "'inner.treshold' .did you mean 'threshold'"),
        ({"inner": {"threshold": 0.5}}, "field 'inner.sizes' is missing"),
        ({"inner": {"threshold": "0.5", "sizes": []}}, "inner.threshold: .*found '0.5'"),
        ({"inner": {"threshold": 0.5, "sizes": [1.5]}}, "inner.sizes.0: .*found 1.5"),
        ({"inner": {"threshold": float("nan"), "sizes": []}}, "inner.threshold"),
        ({"inner": {"threshold": float("inf"), "sizes": []}}, "inner.threshold"),
    ],
)
def test_mistakes_are_named_with_their_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        _parse({**GOOD, **change})
    assert str(caught.value).startswith("file.json: ")
    assert "\n" not in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(DocumentError, match="schema.*note"):
        _parse({"inner": GOOD["inner"], "note": 3})


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no such file"):
        read_document(tmp_path / "absent.json", _Outer)
    (tmp_path / "broken.json").write_text('{"schema": ')
    with pytest.raises(DocumentError, match="broken.json"):
        read_document(tmp_path / "broken.json", _Outer)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentError, match="bytes.json"):
        read_document(tmp_path / "bytes.json", _Outer)


def test_documents_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _parse(GOOD).note = "x"  # type: ignore[misc]


def test_the_hash_depends_on_the_content_alone() -> None:
    reordered = {"note": None, "inner": {"sizes": [1, 2], "threshold": 0.5}, "schema": "test.1"}
    assert content_hash(_parse(GOOD)) == content_hash(_parse(reordered))
    assert content_hash(_parse(GOOD)) != content_hash(_parse({**GOOD, "note": "x"}))
    assert len(content_hash(_parse(GOOD))) == 64


def test_plain_lists_stay_on_one_line() -> None:
    assert '"sizes": [1, 2]' in to_text(_parse(GOOD))
    text = format_json({"a": [{"b": 1}, {"b": [1, 2]}], "c": {}, "d": [], "e": [[1, 2], [3]]})
    assert json.loads(text) == {"a": [{"b": 1}, {"b": [1, 2]}], "c": {}, "d": [], "e": [[1, 2], [3]]}
    assert '"e": [[1, 2], [3]]' in text
    with pytest.raises(ValueError, match="JSON"):
        format_json(float("nan"))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.nii.gz"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), write_beside(path) as temporary:
        assert temporary.name.endswith("file.nii.gz") and temporary != path
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "file.json", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == 0o640
