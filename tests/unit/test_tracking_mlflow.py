import pytest

from feature_repo.errors import InputError
from training.tracking import tracking_run


def runs_of(uri: str, experiment: str) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


def test_tracking_when_run_ends_then_metrics_and_parameters_stand_in_sqlite(uri):
    from mlflow import MlflowClient

    with tracking_run(uri, "signals", "first", {"seed": 3, **{f"p{i}": i for i in range(150)}}) as tracker:
        tracker.log({"loss": 0.5, "bad": float("nan")}, step=1)
        tracker.log({"loss": 0.25}, step=2)

    (run,) = runs_of(uri, "signals")
    assert run.info.status == "FINISHED" and run.info.run_name == "first"
    assert run.data.metrics == {"loss": 0.25}
    assert len(run.data.params) == 151 and run.data.params["seed"] == "3"
    history = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert not [name for name in run.data.tags if "git" in name or "source" in name or "user" in name]


def test_tracking_when_block_raises_then_run_is_failed_and_error_goes_on(uri):
    with pytest.raises(ZeroDivisionError), tracking_run(uri, "failing", "second"):
        raise ZeroDivisionError

    assert runs_of(uri, "failing")[0].info.status == "FAILED"


def test_tracking_when_experiment_was_deleted_then_it_is_restored(uri):
    from mlflow import MlflowClient

    with tracking_run(uri, "deleted", "first"):
        pass
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)

    with tracking_run(uri, "deleted", "second"):
        pass

    assert {run.info.run_name for run in runs_of(uri, "deleted")} >= {"second"}


def test_tracking_when_uri_is_none_then_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with tracking_run(None, "signals", "none") as tracker:
        tracker.log({"loss": 1.0}, step=1)

    assert list(tmp_path.iterdir()) == []


def test_tracking_when_store_cannot_be_opened_then_names_the_uri(tmp_path):
    uri = f"sqlite:///{tmp_path / 'absent' / 'mlflow.db'}"
    (tmp_path / "absent").write_text("a file, not a folder")

    with pytest.raises(InputError, match="cannot log to MLflow at sqlite"), tracking_run(uri, "signals", "run"):
        pass
