"""Profiles override settings by name, and a wrong one is refused by name."""

import pytest

from feature_repo.errors import InputError
from feature_repo.lake import Partition
from flows.configs import agent_config, evaluation_config, signal_config
from flows.params import EvaluateParams, TrainAgentParams, TrainSignalParams
from flows.settings import load_profile

DAYS = [Partition("SYN", "SYN1", f"2025-01-0{day}") for day in (6, 7, 8)]


def write(tmp_path, text: str) -> str:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", ["quick", "full"])
def test_profile_when_built_in_then_every_configuration_takes_it(name):
    assert signal_config(TrainSignalParams(profile=name, test_days=1)).test_days == 1
    assert agent_config(TrainAgentParams(profile=name, test_days=1), DAYS).train_days == ("2025-01-06", "2025-01-07")
    assert evaluation_config(EvaluateParams(profile=name, test_days=1)).longest_label_s == 60


def test_profile_when_seed_is_given_then_training_takes_it(tmp_path):
    base = agent_config(TrainAgentParams(), DAYS).seeds
    assert agent_config(TrainAgentParams(seed=5), DAYS).seeds == tuple(seed + 5 for seed in base)


def test_profile_when_it_overrides_then_the_setting_changes(tmp_path):
    name = write(tmp_path, "extends: quick\nsignal: {max_epochs: 3}\nagent: {hidden: [8, 8]}\n")
    assert signal_config(TrainSignalParams(profile=name)).max_epochs == 3
    assert agent_config(TrainAgentParams(profile=name), DAYS).hidden == (8, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: quick\nsignal: {epocs: 3}\n", r"signal\.epocs is no setting"),
        ("extends: quick\nsignals: {}\n", "unknown section"),
        ("signal: {}\n", "extends is None"),
        ("extends: quick\nsignal: 3\n", "must be a mapping, not int"),
        ("extends: [quick\n", "not valid YAML"),
        ("extends: quick\nsignal: {max_epochs: 0}\n", "max_epochs is 0"),
    ],
)
def test_profile_when_wrong_then_names_what_and_where(tmp_path, text, message):
    name = write(tmp_path, text)
    with pytest.raises(InputError, match=message):
        signal_config(TrainSignalParams(profile=name))


def test_profile_when_unknown_then_lists_the_known_ones():
    with pytest.raises(InputError, match="known profiles: full, quick"):
        load_profile("quik")
