"""The materialize stage: features and forecasts into a Feast store, read back and compared with what went in."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import InputError, ShortfallError
from feature_repo.lake import list_partitions
from feature_repo.progress import Progress, no_progress

REGISTRY, ONLINE = "registry.db", "online_store.db"
_KEYS = ("event_timestamp", "instrument_id")


def materialize(
    features_dir: Path, out_dir: Path, forecasts_dir: Path | None = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Build a Feast store in `out_dir`: definitions applied, the newest values in the SQLite online store.

    The store stands on its own and may be moved. Returns `{"views", "rows", "compared"}`: feature views filled, offline
    rows, and online values that were read back and found equal to the newest Parquet row. Raises InputError naming file
    and column where a value is missing or not finite, ShortfallError where an online value differs.
    """
    views = {"microstructure": (features_dir, "features.parquet")}
    if forecasts_dir is not None:
        views["forecasts"] = (forecasts_dir, "forecasts.parquet")
    rows = 0
    columns = {name: feature_names(name) for name in views}
    for done, (name, (folder, file)) in enumerate(views.items()):
        progress(done, len(views) + 1, "feature views")
        rows += _consolidate(folder, file, out_dir / f"{name}.parquet", columns[name])
    newest = {name: _newest_rows(out_dir / f"{name}.parquet") for name in views}
    with _quiet():
        store = open_store(out_dir)
        store.apply(_definitions(forecasts_dir is not None))
        for name, values in newest.items():
            last = max(row["event_timestamp"] for row in values)
            first = min(row["event_timestamp"] for row in values)
            # The online store holds the newest value of each instrument alone: what is older need not be read.
            store.materialize(first - timedelta(seconds=1), last + timedelta(seconds=1), feature_views=[name])
    compared = sum(_compare_online(store, name, columns[name], values) for name, values in newest.items())
    progress(len(views) + 1, len(views) + 1, "feature views")
    return {"views": list(views), "rows": rows, "compared": compared}


def open_store(store_dir: Path) -> Any:
    """The `feast.FeatureStore` in this folder, wherever the folder was moved to since it was built."""
    _silence()
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

    config = RepoConfig(
        project="shortfall",
        provider="local",
        registry=str(store_dir / REGISTRY),
        online_store={"type": "sqlite", "path": str(store_dir / ONLINE)},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    config.repo_path = store_dir  # the sources' paths are relative to it, so that the folder may be moved
    return FeatureStore(config=config)


def feature_names(view: str) -> list[str]:
    """Names of a feature view's features, as its definition has them."""
    _silence()
    import feature_repo.features as definitions

    return [field.name for field in getattr(definitions, view).features]


def historical_sample_agrees(store_dir: Path, instrument_id: str, decision_ns: np.ndarray) -> int:
    """Compare Feast's point-in-time join with the as-of join of training, at distinct `decision_ns (n,) int64` UTC.

    Both honour the time to live. Gives the number of values compared; raises ShortfallError where one differs.
    """
    import pandas as pd

    from feature_repo.features import TIME_TO_LIVE
    from feature_repo.pipeline.asof import asof_index

    names = feature_names("microstructure")
    table = pq.read_table(store_dir / "microstructure.parquet")
    table = table.filter(pc.equal(table.column("instrument_id"), instrument_id)).sort_by("event_timestamp")
    stamps = table.column("event_timestamp").cast(pa.int64()).to_numpy() * 1000
    index = asof_index(decision_ns, stamps, int(TIME_TO_LIVE.total_seconds()) * 1_000_000_000)
    asked = pd.DataFrame({"instrument_id": instrument_id, "event_timestamp": pd.to_datetime(decision_ns, utc=True)})
    with _quiet():
        asked_features = [f"microstructure:{name}" for name in names]
        got = open_store(store_dir).get_historical_features(entity_df=asked, features=asked_features).to_df()
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


def _consolidate(folder: Path, file: str, target: Path, names: list[str]) -> int:
    """One Parquet of all partitions, a partition at a time: Feast's file source takes one file."""
    partitions = list_partitions(folder, file)
    if not partitions:
        raise InputError(f"{folder}: no {file} below it; run the stage that writes it again")
    rows, writer = 0, None
    try:
        for partition in partitions:
            path = partition.folder(folder) / file
            table = _read(path, names)
            writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
            writer.write_table(table)
            rows += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return rows


def _read(path: Path, names: list[str]) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error
    if table.num_rows == 0:
        raise InputError(f"{path}: holds no row")
    for name in (*_KEYS, *names):
        if name not in table.column_names:
            raise InputError(f"{path}: no column {name!r}; there: {', '.join(table.column_names)}")
        column = table.column(name)
        if column.null_count:
            raise InputError(f"{path}: column {name!r} has {column.null_count} empty values")
        if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(column)).as_py():
            raise InputError(f"{path}: column {name!r} holds a value that is not finite")
        wanted = _type_wanted(name)
        if column.type != wanted:
            raise InputError(f"{path}: column {name!r} holds {column.type}, wanted {wanted}")
    return table.select([*_KEYS, *names])


def _type_wanted(name: str) -> pa.DataType:
    """The Parquet type that the stages before write; another would be rounded or refused inside Feast."""
    if name == "event_timestamp":
        return pa.timestamp("us", tz="UTC")
    if name in ("instrument_id", "model_version"):
        return pa.string()
    return pa.int8() if name in ("book_valid", "forecast_missing") else pa.float32()


def _newest_rows(path: Path) -> list[dict[str, Any]]:
    """The newest row of each instrument."""
    table = pq.read_table(path)
    rows = []
    for instrument_id in pc.unique(table.column("instrument_id")).to_pylist():
        mine = table.filter(pc.equal(table.column("instrument_id"), instrument_id))
        newest = int(np.argmax(mine.column("event_timestamp").cast(pa.int64()).to_numpy()))
        rows.append(mine.slice(newest, 1).to_pylist()[0])
    return rows


def _compare_online(store: Any, view: str, names: list[str], rows: list[dict[str, Any]]) -> int:
    features = [f"{view}:{name}" for name in names]
    asked = [{"instrument_id": row["instrument_id"]} for row in rows]
    online = store.get_online_features(features=features, entity_rows=asked).to_dict()
    for at, row in enumerate(rows):
        for name in names:
            if online[name][at] != row[name]:
                raise ShortfallError(
                    f"{row['instrument_id']} {view}.{name}: the online store holds {online[name][at]!r}, "
                    f"the newest Parquet row {row[name]!r}"
                )
    return len(rows) * len(names)


def _definitions(with_forecasts: bool) -> list[Any]:
    """What `feast apply` finds in this repository; without forecasts, what needs them is left out."""
    from feature_repo import entities, features, services

    base = [entities.instrument, features.microstructure, services.signal_v1, services.signal_v2]
    return [*base, features.forecasts, services.execution_v1] if with_forecasts else base


def _silence() -> None:
    """Neither telemetry nor progress bars; before Feast is imported."""
    os.environ.setdefault("FEAST_USAGE", "False")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's printing off standard output, which belongs to the command's own answer."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield
