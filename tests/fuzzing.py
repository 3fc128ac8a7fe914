"""Damages one of a vendor's files in any way that Hypothesis draws, and requires an answer: events or a typed error."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st

from feature_repo.errors import InputError
from feature_repo.lake import list_partitions
from feature_repo.ticks import streams
from feature_repo.ticks.ingest import ingest
from feature_repo.ticks.reader import IngestRequest, Option
from feature_repo.ticks.schema import EVENT_SCHEMA, Kind, Side

FUZZ = settings(
    max_examples=int(os.environ.get("SHORTFALL_FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""Settings of every fuzz test: a second or two in the default run, as many examples as the variable says elsewhere."""

_BOMB_BYTES = 1 << 20
_PLAIN = (".yaml", ".yml", ".json", ".parquet")  # never inside a container
_TEXT_TOKENS = (
    *(b"NaN", b"nan", b"inf", b"-inf", b"null", b"", b" ", b"-", b"0", b"-1", b"+7", b"0x1F", b"1e308", b"-1e308"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"18446744073709551616", b"9" * 400),
    *(b"1.5", b"0.00000001", b"1e-320", b"1_000", b"true", b"[]", b"{}", b'"', b'"a', b"'", b"\\", b"\\u0000"),
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"caf\xe9", "٣".encode(), "１".encode(), b"\r", b"\n", b"\r\n", b"\t"),
    *(b",", b",,,,,,,,", b":", b"#", b"=1+1", b"2013-13-45", b"9999-12-31T23:59:59", b"A" * 5000),
)
_BINARY_TOKENS = tuple(
    np.array([value], kind).tobytes()
    for kind, values in {
        "<u1": (0, 255),
        "<u2": (0, 65535),
        "<u4": (0, 2**31, 2**32 - 1),
        "<i8": (0, -1, 2**63 - 1, -(2**63)),
        "<f8": (np.nan, np.inf, -np.inf, 1e308, -0.0),
    }.items()
    for value in values
)


def check_reader_survives(
    reader_name: str,
    files: Mapping[str, bytes],
    *,
    container: str | None = None,
    tmp: Path,
    data: st.DataObject,
    options: Mapping[str, Option] | None = None,
    may_blame: Collection[str] = (),
) -> None:
    """Damage one of `files` (relative path: content), ingest them, and require success or an InputError.

    `container` packs each file ("gzip", "bz2", "xz", "zstd", "zip"), and the damage is done to the content or to the
    packed bytes. Success means: every partition is readable, in EVENT_SCHEMA, numbered from 0, of known kinds and
    sides, and vendor rows were counted. An InputError names the damaged file (or one of `may_blame`, where two files
    only contradict each other), and leaves no manifest and no partition that is not readable.
    """
    victim = data.draw(st.sampled_from(sorted(files)), label="file")
    packed = container is not None and not victim.endswith(_PLAIN)
    on_container = packed and data.draw(st.booleans(), label="damage the container")
    with tempfile.TemporaryDirectory(dir=tmp) as name:
        root, out = Path(name) / "data", Path(name) / "out"
        out.mkdir(parents=True)
        for path, content in files.items():
            if path == victim and not on_container:
                content = damaged(content, data)
            if container is not None and not path.endswith(_PLAIN):
                content = pack(container, content, Path(path).stem)
            if path == victim and on_container:
                content = damaged(content, data)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        request = IngestRequest(reader_name, root, options=dict(options or {}))
        with mock.patch.object(streams, "BOMB_FREE_BYTES", _BOMB_BYTES):
            try:
                summary = ingest(request, out)
            except InputError as error:
                note(f"refused: {error}")
                names = {Path(victim).name, *(Path(item).name for item in may_blame)}
                assert any(item in str(error) for item in names), f"names none of {sorted(names)}: {error}"
                assert not (out / "manifest.json").exists()
                _require_whole_partitions(out)
                return
        note("read")
        rows = _require_whole_partitions(out)
        assert summary["rows"] == sum(rows) and summary["vendor_rows"] > 0 and all(rows)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["vendor_rows"] == summary["vendor_rows"]
        assert all(item["vendor_rows"] > 0 for item in manifest["inputs"])


def pack(container: str, content: bytes, stem: str = "data") -> bytes:
    """`content` in a container."""
    if container == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(f"{stem}.csv"), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()
    return {
        "gzip": lambda: gzip.compress(content, 6, mtime=0),
        "bz2": lambda: bz2.compress(content, 1),
        "xz": lambda: lzma.compress(content, preset=0),
        "zstd": lambda: pa.Codec("zstd").compress(content).to_pybytes(),
    }[container]()


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """`content` after one to three damages of any sort, most often one: what is hardly damaged comes farthest."""
    for _ in range(data.draw(st.sampled_from([1, 1, 1, 1, 2, 3]), label="damages")):
        damage = data.draw(st.sampled_from(_DAMAGES), label="damage")
        content = damage(content, data)
    return content


def _span(content: bytes, data: st.DataObject, longest: int = 4096) -> tuple[int, int]:
    """A stretch of the content, most often at whole lines where there are any."""
    start = data.draw(st.integers(0, len(content)), label="from")
    stop = min(start + data.draw(st.integers(1, longest), label="length"), len(content))
    if data.draw(st.integers(0, 3), label="whole lines") and b"\n" in content:
        start = content.rfind(b"\n", 0, start) + 1
        stop = content.find(b"\n", max(stop - 1, start)) + 1 or len(content)
    return start, stop


def _truncate(content: bytes, data: st.DataObject) -> bytes:
    return content[: data.draw(st.integers(0, len(content)), label="keep")]


def _flip(content: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(content)
    for at in data.draw(st.lists(st.integers(0, 8 * len(content)), min_size=1, max_size=8), label="bits"):
        if at < 8 * len(content):
            changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def _duplicate(content: bytes, data: st.DataObject) -> bytes:
    start, stop = _span(content, data)
    return content[:stop] + content[start:stop] * data.draw(st.integers(1, 3), label="times") + content[stop:]


def _drop(content: bytes, data: st.DataObject) -> bytes:
    start, stop = _span(content, data)
    return content[:start] + content[stop:]


def _swap(content: bytes, data: st.DataObject) -> bytes:
    (a, b), (c, d) = sorted((_span(content, data), _span(content, data)))
    c = max(b, c)
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[max(c, d) :]


def _zero_fill(content: bytes, data: st.DataObject) -> bytes:
    start, stop = _span(content, data)
    return content[:start] + bytes(stop - start) + content[stop:]


def _empty(content: bytes, data: st.DataObject) -> bytes:
    return b""


def _append(content: bytes, data: st.DataObject) -> bytes:
    return content + data.draw(st.binary(min_size=1, max_size=64) | st.sampled_from(_TEXT_TOKENS), label="appended")


def _bomb(content: bytes, data: st.DataObject) -> bytes:
    """So much of one byte that the content of any container grows beyond the limit."""
    return content + data.draw(st.sampled_from([b"\0", b"0", b"\n"]), label="byte") * (4 * _BOMB_BYTES)


def _field(content: bytes, data: st.DataObject) -> bytes:
    """Another text in place of one field of one line."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at = data.draw(st.integers(0, len(lines) - 1), label="line")
    fields = list(re.finditer(rb"[^\s,;:\[\]{}\"]+", lines[at]))
    if not fields:
        return content
    field = fields[data.draw(st.integers(0, len(fields) - 1), label="field")]
    token = data.draw(st.sampled_from(_TEXT_TOKENS), label="text")
    lines[at] = lines[at][: field.start()] + token + lines[at][field.end() :]
    return b"".join(lines)


def _overwrite(content: bytes, data: st.DataObject) -> bytes:
    """An extreme binary number over what is there."""
    at = data.draw(st.integers(0, len(content)), label="at")
    token = data.draw(st.sampled_from(_BINARY_TOKENS), label="bytes")
    return content[:at] + token + content[at + len(token) :]


def _encoding(content: bytes, data: st.DataObject) -> bytes:
    """The same text in another encoding."""
    return content.decode("latin-1").encode(data.draw(st.sampled_from(["utf-16", "utf-8-sig", "cp500"]), label="code"))


_DAMAGES: tuple[Callable[[bytes, st.DataObject], bytes], ...] = (
    *(_field, _truncate, _flip, _duplicate, _drop, _swap, _zero_fill, _overwrite, _append, _encoding, _empty, _bomb),
)


def _require_whole_partitions(out: Path) -> list[int]:
    """Rows of each partition, after a look at all of them."""
    rows = []
    for partition in list_partitions(out, "events.parquet"):
        table = pq.read_table(partition.folder(out) / "events.parquet", partitioning=None)
        assert table.schema.equals(EVENT_SCHEMA)
        assert not any(column.null_count for column in table.columns)
        assert np.array_equal(table["sequence"].to_numpy(), np.arange(len(table)))
        assert set(table["kind"].unique().to_pylist()) <= set(Kind)
        assert set(table["side"].unique().to_pylist()) <= set(Side)
        rows.append(len(table))
    return rows
