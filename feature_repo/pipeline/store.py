"""The materialize stage: features and forecasts into a Feast store, read back and compared with what went in."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import Partition, list_partitions
from feature_repo.parts import read_index
from feature_repo.pipeline.online import (
    ONLINE,
    REGISTRY,
    SQLITE,
    VIEWS,
    checked,
    feature_names,
    link,
    moment,
    online_stamps,
    open_store,
    quiet,
    stamps_ns,
)
from feature_repo.progress import Progress, no_progress


@dataclass
class _View:
    """One feature view on its way into the store."""

    name: str
    folder: Path
    file: str
    names: list[str]
    keys: dict[Partition, str] = field(default_factory=dict)  # of every partition
    rows: int = 0  # read in this run
    newest: dict[str, dict[str, Any]] = field(default_factory=dict)  # newest row of each instrument that changed


def materialize(
    features_dir: Path,
    out_dir: Path,
    forecasts_dir: Path | None = None,
    progress: Progress = no_progress,
    *,
    previous: Path | None = None,
    online_store: Mapping[str, Any] = SQLITE,
) -> dict[str, Any]:
    """Build a Feast store in `out_dir`: definitions applied, the newest values of each instrument online.

    The offline rows are the datasets' own files, linked and not copied: a file source may be a folder. Memory is one
    partition, whatever the number of days: Feast is given the newest row of each instrument and not the folder, which
    its file store would read whole. A value that stands online is never replaced by an older one.

    Args:
        features_dir: what `build_features` wrote.
        out_dir: empty folder; with SQLite the store in it stands on its own and may be moved.
        forecasts_dir: what `train_signal` wrote; None: features alone.
        progress: told feature views done.
        previous: an earlier store to go on from by Feast's `materialize_incremental`: only partitions that it does not
            hold are read, and only what is newer than its last run goes online. One with other features or views is
            not gone on from.
        online_store: as for `open_store`; a Redis store is shared and not in `out_dir`.

    Returns:
        `views` filled; `rows` offline; `new_rows` of them read in this run; `mode` by view: `full`, `incremental`, or
        `unchanged`; `compared`: online values read back and found equal to the newest Parquet row.

    Raises:
        InputError: a value is missing or not finite (names file and column), or the online store's configuration is
            wrong.
        ShortfallError: an online value differs, or the online store cannot be reached.
    """
    views = [_View("microstructure", features_dir, "features.parquet", feature_names("microstructure"))]
    if forecasts_dir is not None:
        views.append(_View("forecasts", forecasts_dir, "forecasts.parquet", feature_names("forecasts")))
    store = open_store(out_dir, online_store)  # refuses a wrong configuration before anything is read
    held = _held(previous, views, str(online_store["type"]))
    if held and previous is not None:
        for name in (REGISTRY, ONLINE):
            if (previous / name).is_file():
                shutil.copyfile(previous / name, out_dir / name)
    for done, view in enumerate(views):
        progress(done, len(views) + 1, "feature views")
        _collect(view, out_dir, held.get(view.name, {}))
    with _reachable(online_store), quiet():
        store.apply(_definitions(forecasts_dir is not None))
        for view in views:
            _restore(view, store)
        modes = {view.name: _fill(view, out_dir, online_store) for view in views}
        compared = sum(_compare_online(store, view) for view in views)
    index = {view.name: {"features": view.names, "partitions": _index(view)} for view in views}
    (out_dir / VIEWS).write_text(json.dumps({"online": online_store["type"], "views": index}, indent=1) + "\n")
    progress(len(views) + 1, len(views) + 1, "feature views")
    return {
        "views": [view.name for view in views],
        "rows": sum(pq.read_metadata(path).num_rows for path in sorted(out_dir.glob("*/*.parquet"))),
        "new_rows": sum(view.rows for view in views),
        "mode": modes,
        "compared": compared,
    }


def historical_sample_agrees(store_dir: Path, instrument_id: str, decision_ns: np.ndarray) -> int:
    """Compare Feast's point-in-time join with the as-of join of training, at distinct `decision_ns (n,) int64` UTC.

    Both honour the time to live, and neither may see what is stamped after the decision. Only the files of this
    instrument are read. Gives the number of values compared; raises ShortfallError where one differs.
    """
    import pandas as pd

    from feature_repo.features import TIME_TO_LIVE
    from feature_repo.pipeline.asof import asof_index

    names = feature_names("microstructure")
    paths = sorted((store_dir / "microstructure").glob(f"{_prefix(*instrument_id.split(':', 1))}*.parquet"))
    if not paths:
        raise InputError(f"{store_dir}: holds no microstructure rows of {instrument_id}")
    table = pa.concat_tables([checked(_read(path), names, str(path)) for path in paths]).sort_by("event_timestamp")
    stamps = stamps_ns(table)
    index = asof_index(decision_ns, stamps, int(TIME_TO_LIVE.total_seconds()) * 1_000_000_000)
    asked = pd.DataFrame({"instrument_id": instrument_id, "event_timestamp": pd.to_datetime(decision_ns, utc=True)})
    with tempfile.TemporaryDirectory() as scratch, quiet():
        for path in paths:
            link(path, Path(scratch) / "microstructure" / path.name)
        store = open_store(store_dir, data_dir=Path(scratch))
        asked_features = [f"microstructure:{name}" for name in names]
        got = store.get_historical_features(entity_df=asked, features=asked_features).to_df()
    # Feast leaves out an asked row whose value is older than the time to live; the as-of join calls it missing.
    got = got.set_index("event_timestamp").reindex(asked["event_timestamp"])
    for name in names:
        ours = table.column(name).to_numpy().astype(np.float64)[index]
        ours[index < 0] = np.nan
        theirs = got[name].to_numpy(np.float64)
        wrong = np.flatnonzero(~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))
        if len(wrong):
            at = wrong[0]
            raise ShortfallError(f"{instrument_id} {name} at {decision_ns[at]}: Feast {theirs[at]}, as-of {ours[at]}")
    return len(names) * len(decision_ns)


def continues(previous: Path, features_dir: Path) -> bool:
    """Whether a store holds partitions of this dataset alone, so that a store of the dataset may go on from it."""
    try:
        views = json.loads((previous / VIEWS).read_text())["views"]
        held = {place for entry in views.values() for place in entry["partitions"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return held <= {_place(partition) for partition in list_partitions(features_dir, "features.parquet")}


def _held(previous: Path | None, views: list[_View], online: str) -> dict[str, dict[str, str]]:
    """Keys of the partitions that the previous store holds, by view; empty where it cannot be gone on from."""
    if previous is None:
        return {}
    path = previous / VIEWS
    try:
        content = json.loads(path.read_text())
        found = content["views"]
        features = {name: entry["features"] for name, entry in found.items()}
        if content["online"] != online or features != {view.name: view.names for view in views}:
            return {}
        return {name: dict(entry["partitions"]) for name, entry in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a store of materialize to go on from ({error}); leave out `previous`") from error


def _collect(view: _View, out_dir: Path, held: Mapping[str, str]) -> None:
    """Link the view's files into the store; read those that are new, one at a time, for their newest row."""
    partitions = list_partitions(view.folder, view.file)
    if not partitions:
        raise InputError(f"{view.folder}: no {view.file} below it; run the stage that writes it again")
    view.keys = read_index(view.folder, view.file, partitions)
    for partition in partitions:
        path = partition.folder(view.folder) / view.file
        link(path, out_dir / view.name / f"{_prefix(partition.venue, partition.symbol)}{partition.date}.parquet")
        if held.get(_place(partition)) == view.keys[partition]:
            continue
        _take(view, partition)


def _take(view: _View, partition: Partition) -> None:
    """Read a partition and keep its newest row if none of its instrument is newer."""
    path = partition.folder(view.folder) / view.file
    table = checked(_read(path), view.names, str(path))
    strange = set(pc.unique(table.column("instrument_id")).to_pylist()) - {partition.instrument_id}
    if strange:
        raise InputError(f"{path}: holds rows of {min(strange)}, wanted {partition.instrument_id} alone")
    view.rows += table.num_rows
    row = table.slice(int(np.argmax(stamps_ns(table))), 1).to_pylist()[0]
    known = view.newest.get(row["instrument_id"])
    if known is None or row["event_timestamp"] > known["event_timestamp"]:
        view.newest[row["instrument_id"]] = row


def _restore(view: _View, store: Any) -> None:
    """Read the last day of each instrument that is to stand online already and does not: a Redis may have lost it."""
    last = {partition.instrument_id: partition for partition in sorted(view.keys)}
    waiting = sorted(set(last) - set(view.newest))
    stands = online_stamps(store, view.name, waiting) if waiting else {}
    for instrument_id in waiting:
        if instrument_id not in stands:
            _take(view, last[instrument_id])


def _fill(view: _View, out_dir: Path, online_store: Mapping[str, Any]) -> str:
    """Bring the newest rows online; says how: `full`, `incremental`, or `unchanged` where no partition is new."""
    if not view.newest:
        return "unchanged"
    with tempfile.TemporaryDirectory(prefix=".newest-", dir=out_dir) as scratch:
        store = open_store(out_dir, online_store, data_dir=Path(scratch), bulk=True)
        stands = online_stamps(store, view.name, sorted(view.newest))
        rows = [view.newest[name] for name in sorted(view.newest)]
        stamps = [int(stamps_ns(pa.Table.from_pylist([row]))[0]) for row in rows]
        last_run = store.get_feature_view(view.name).most_recent_end_time
        # A recomputed row of the same time replaces what stands; an older one does not.
        due = [(at, row) for at, row in zip(stamps, rows, strict=True) if at >= stands.get(row["instrument_id"], 0)]
        if due:
            schema = pq.read_schema(next((out_dir / view.name).glob("*.parquet")))
            fields = [schema.field(name) for name in rows[0]]
            (Path(scratch) / view.name).mkdir()
            table = pa.Table.from_pylist([row for _, row in due], schema=pa.schema(fields))
            pq.write_table(table, Path(scratch) / view.name / "newest.parquet")
        first, last = moment(min(stamps)), moment(max(stamps))
        if last_run is not None and first >= last_run:
            if due:
                store.materialize_incremental(last, feature_views=[view.name])
            return "incremental"
        if due:
            store.materialize(first, last, feature_views=[view.name])
        return "full"


def _compare_online(store: Any, view: _View) -> int:
    """Read the newest rows back; a later value that was pushed live is left out. Gives how many values were equal."""
    if not view.newest:
        return 0
    rows = [view.newest[name] for name in sorted(view.newest)]
    stands = online_stamps(store, view.name, sorted(view.newest))
    stamps = [int(stamps_ns(pa.Table.from_pylist([row]))[0]) for row in rows]
    rows = [row for row, stamp in zip(rows, stamps, strict=True) if stands.get(row["instrument_id"], 0) <= stamp]
    if not rows:
        return 0
    asked = [{"instrument_id": row["instrument_id"]} for row in rows]
    online = store.get_online_features(features=[f"{view.name}:{name}" for name in view.names], entity_rows=asked)
    values = online.to_dict()
    for at, row in enumerate(rows):
        for name in view.names:
            if values[name][at] != row[name]:
                raise ShortfallError(
                    f"{row['instrument_id']} {view.name}.{name}: the online store holds {values[name][at]!r}, "
                    f"the newest Parquet row {row[name]!r}"
                )
    return len(rows) * len(view.names)


def _read(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error
    if table.num_rows == 0:
        raise InputError(f"{path}: holds no row")
    return table


def _prefix(venue: str, symbol: str) -> str:
    """Start of the names of an instrument's files in a view's folder."""
    return f"{venue}__{symbol}__"


def _place(partition: Partition) -> str:
    return f"{partition.venue}/{partition.symbol}/{partition.date}"


def _index(view: _View) -> dict[str, str]:
    return {_place(partition): key for partition, key in sorted(view.keys.items())}


def _definitions(with_forecasts: bool) -> list[Any]:
    """What `feast apply` finds in this repository; without forecasts, what needs them is left out."""
    from feature_repo import entities, features, services, sources

    base = [entities.instrument, sources.microstructure_push, features.microstructure]
    base += [services.signal_v1, services.signal_v2]
    return [*base, sources.forecasts_push, features.forecasts, services.execution_v1] if with_forecasts else base


@contextmanager
def _reachable(online_store: Mapping[str, Any]) -> Iterator[None]:
    """Say which online store it is that does not answer."""
    try:
        yield
    except Exception as error:
        if online_store["type"] != "redis":
            raise
        from redis.exceptions import RedisError

        if not isinstance(error, RedisError):
            raise
        where = str(online_store["connection_string"]).split(",")[0]  # what follows may be a password
        raise ShortfallError(
            f"online store redis at {where}: {error}; start it or name another online_store"
        ) from error
