"""The online side of the feature store: opened by configuration, fed live rows, read as of a moment that decides."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import InputError

REGISTRY, ONLINE, VIEWS = "registry.db", "online_store.db", "views.json"
PROJECT = "shortfall"
KEYS = ("event_timestamp", "instrument_id")
SQLITE: Mapping[str, Any] = {"type": "sqlite"}
_KNOWN = {
    "sqlite": {"type"},
    "redis": {"type", "connection_string", "redis_type", "sentinel_master", "key_ttl_seconds"},
}


def open_store(
    store_dir: Path,
    online_store: Mapping[str, Any] | None = None,
    *,
    data_dir: Path | None = None,
    bulk: bool = False,
) -> Any:
    """The `feast.FeatureStore` in this folder, wherever the folder was moved to since it was built.

    Args:
        store_dir: what `materialize` wrote.
        online_store: `{"type": "sqlite"}` (the default: a file in the folder) or `{"type": "redis",
            "connection_string": "host:port"}`, with Feast's other options of it.
        data_dir: where the offline rows are; None: in the folder.
        bulk: the caller has left out what is older than what stands online, so that Redis need not compare.

    Raises InputError where the configuration is not of this form.
    """
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(store_dir / REGISTRY),
        online_store=_online_config(online_store or SQLITE, store_dir, bulk),
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    config.repo_path = data_dir or store_dir  # the sources' paths are relative to it, so that the folder may be moved
    return FeatureStore(config=config)


def copy_store(store_dir: Path, target: Path) -> None:
    """Make a store in the empty folder `target` that may be pushed to; the published one is never changed.

    Offline rows are linked, not copied, where the file system can.
    """
    for name in (REGISTRY, ONLINE, VIEWS):
        if (store_dir / name).is_file():
            shutil.copyfile(store_dir / name, target / name)
    for path in sorted(store_dir.glob("*/*.parquet")):
        link(path, target / path.parent.name / path.name)


def push(store: Any, view: str, rows: pa.Table, offline_dir: Path | None = None) -> dict[str, int]:
    """Write live rows of a feature view online, so that serving reads them at once.

    Args:
        store: of `open_store`, on a folder of one's own (`copy_store`) where the online store is SQLite.
        view: `microstructure` or `forecasts`.
        rows: `event_timestamp` (us, UTC), `instrument_id` and all features of the view, of the types in Parquet.
        offline_dir: the store's folder, to keep the rows for history too; None: online alone.

    Returns:
        `written` and `stale`: rows that are not newer than what stands online for their instrument, which stays.

    Raises:
        InputError: a column is missing, of another type, empty or not finite; an instrument has two rows of one time.
    """
    from feast.data_source import PushMode

    names = feature_names(view)
    table = checked(rows, names, f"rows pushed to {view}")
    newest = table.sort_by([("instrument_id", "ascending"), ("event_timestamp", "ascending")])
    ids, stamps = newest.column("instrument_id").to_pylist(), stamps_ns(newest)
    pairs = list(zip(ids, stamps.tolist(), strict=True))
    twice = [pair for pair, following in zip(pairs, pairs[1:], strict=False) if pair == following]
    if twice:
        raise InputError(f"rows pushed to {view}: two rows of {twice[0][0]} at {twice[0][1]} ns; push each once")
    known = online_stamps(store, view, sorted(set(ids)))
    fresh = np.array([stamp > known.get(name, -1) for name, stamp in pairs], bool)
    kept = newest.filter(pa.array(fresh))
    if kept.num_rows:
        # Feast's SQLite store keeps what it is given last, so each instrument's newest row goes alone.
        last = [at for at in range(kept.num_rows) if at + 1 == kept.num_rows or _id(kept, at) != _id(kept, at + 1)]
        with quiet():
            store.push(f"{view}_push", kept.take(pa.array(last)).to_pandas(), to=PushMode.ONLINE)
        if offline_dir is not None:
            _append(kept, offline_dir / view)
    return {"written": kept.num_rows, "stale": newest.num_rows - kept.num_rows}


def online_features(
    store: Any, service: str, instrument_ids: Sequence[str], decision_ns: int
) -> dict[str, dict[str, Any]]:
    """What a feature service knows of each instrument at `decision_ns` (UTC).

    A value older than its view's time to live, or stamped after the decision, is None: Feast's own read gives both. So
    is every value of an instrument that the store does not know.

    Returns:
        By instrument: `values` (by feature), `event_ns` (by view: when its values held, None where there are none).

    Raises:
        InputError: no service of this name.
    """
    from feast.errors import FeatureServiceNotFoundException

    try:
        with quiet():
            found = store.get_feature_service(service)
            projections = {p.name: (p, store.get_feature_view(p.name).ttl) for p in found.feature_view_projections}
            asked = [{"instrument_id": name} for name in instrument_ids]
            response = store.get_online_features(features=found, entity_rows=asked, full_feature_names=True)
    except FeatureServiceNotFoundException as error:
        known = ", ".join(sorted(item.name for item in store.list_feature_services()))
        raise InputError(f"feature service {service!r} is unknown; there are: {known}") from error
    values = response.to_dict()
    stamps = dict(zip(response.proto.metadata.feature_names.val, response.proto.results, strict=True))
    answer: dict[str, dict[str, Any]] = {}
    for at, instrument_id in enumerate(instrument_ids):
        known_values: dict[str, Any] = {}
        event_ns: dict[str, int | None] = {}
        for view, (projection, ttl) in projections.items():
            event_ns[view] = None
            for feature in projection.features:
                name = f"{projection.name_to_use()}__{feature.name}"
                stamp = stamps[name].event_timestamps[at].ToNanoseconds()
                value = values[name][at]
                current = stamp <= decision_ns and decision_ns - stamp <= int(ttl.total_seconds() * 1e9)
                known_values[feature.name] = value if current else None
                if value is not None and current:
                    event_ns[view] = stamp
        answer[instrument_id] = {"values": known_values, "event_ns": event_ns}
    return answer


def online_stamps(store: Any, view: str, instrument_ids: Sequence[str]) -> dict[str, int]:
    """Event time, int64 ns UTC, of what stands online for each instrument; those without are left out."""
    first = feature_names(view)[0]
    with quiet():
        asked = [{"instrument_id": name} for name in instrument_ids]
        response = store.get_online_features(features=[f"{view}:{first}"], entity_rows=asked)
    place = list(response.proto.metadata.feature_names.val).index(first)
    values, stamps = response.to_dict()[first], response.proto.results[place].event_timestamps
    found = zip(instrument_ids, values, stamps, strict=True)
    return {name: stamp.ToNanoseconds() for name, value, stamp in found if value is not None}


def feature_names(view: str) -> list[str]:
    """Names of a feature view's features, as its definition has them."""
    import feature_repo.features as definitions

    return [field.name for field in getattr(definitions, view).features]


def checked(table: pa.Table, names: Sequence[str], where: str) -> pa.Table:
    """The keys and the features `names` of a table that has them whole; raises InputError naming `where` and column."""
    for name in (*KEYS, *names):
        if name not in table.column_names:
            raise InputError(f"{where}: no column {name!r}; there: {', '.join(table.column_names)}")
        column = table.column(name)
        if column.null_count:
            raise InputError(f"{where}: column {name!r} has {column.null_count} empty values")
        if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column)).as_py():
            raise InputError(f"{where}: column {name!r} holds a value that is not finite")
        wanted = type_wanted(name)
        if column.type != wanted:
            raise InputError(f"{where}: column {name!r} holds {column.type}, wanted {wanted}")
    return table.select([*KEYS, *names])


def type_wanted(name: str) -> pa.DataType:
    """The Parquet type that the stages before write; another would be rounded or refused inside Feast."""
    if name == "event_timestamp":
        return pa.timestamp("us", tz="UTC")
    if name in ("instrument_id", "model_version"):
        return pa.string()
    return pa.int8() if name in ("book_valid", "forecast_missing") else pa.float32()


def stamps_ns(table: pa.Table) -> np.ndarray:
    """`event_timestamp` as int64 nanoseconds UTC."""
    return table.column("event_timestamp").cast(pa.int64()).to_numpy() * 1000


def moment(ns: int) -> datetime:
    """The aware UTC moment of `ns`, to the microsecond."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(microsecond=ns % 1_000_000_000 // 1000)


def link(source: Path, target: Path) -> None:
    """Let `target` be the finished file `source`: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's printing off standard output, which belongs to the command's own answer."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def _online_config(spec: Mapping[str, Any], store_dir: Path, bulk: bool) -> dict[str, Any]:
    kind = spec.get("type")
    if kind not in _KNOWN:
        raise InputError(f"online_store.type is {kind!r}; wanted {' or '.join(_KNOWN)}")
    if strange := sorted(set(spec) - _KNOWN[kind]):
        raise InputError(f"online_store.{strange[0]} is unknown for {kind}; options: {', '.join(sorted(_KNOWN[kind]))}")
    if kind == "sqlite":
        return {"type": "sqlite", "path": str(store_dir / ONLINE)}
    if not isinstance(spec.get("connection_string"), str) or not spec["connection_string"]:
        raise InputError('online_store of type redis needs connection_string, "host:port"')
    return {**spec, "skip_dedup": bulk}


def _id(table: pa.Table, at: int) -> str:
    return str(table.column("instrument_id")[at].as_py())


def _append(table: pa.Table, folder: Path) -> None:
    """Add a file of live rows to the view's folder, whole or not at all, with the columns of the files beside it."""
    stamps = stamps_ns(table)
    beside = next(iter(sorted(folder.glob("*.parquet"))), None)
    if beside is not None:
        schema = pq.read_schema(beside)
        extra = {"ts_ns": pa.array(stamps)}  # what the datasets hold besides; of anything else nothing is known
        columns = {
            item.name: table[item.name] if item.name in table.column_names
            else extra.get(item.name, pa.nulls(len(table), item.type))
            for item in schema
        }  # fmt: skip
        table = pa.table(columns)
    whose = hashlib.sha256("\n".join(sorted(set(table["instrument_id"].to_pylist()))).encode()).hexdigest()[:12]
    path = folder / f"live__{stamps.min()}__{stamps.max()}__{whose}.parquet"
    partial = path.with_name(f".{path.name}.part")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, partial, compression="zstd")
    partial.rename(path)
