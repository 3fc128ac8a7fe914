import json
import re
import shutil
from itertools import count

import pytest

from feature_repo.errors import InputError
from serving.contracts.bundle import load_bundle, write_bundle
from serving.promotion import MODEL_NAME
from serving.registry import CHALLENGER, CHAMPION, Registry
from serving.signing import SignatureError
from training.execution.static_rule import static_rule_onnx, write_bundle_zero


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow takes a second to lay out a database: do it once and copy it."""
    root = tmp_path_factory.mktemp("registry")
    with Registry(root)._locked():
        pass
    return root


@pytest.fixture
def registry(tmp_path, empty_database):
    ticks = count(1_000)
    shutil.copytree(empty_database, tmp_path / "registry")
    return Registry(tmp_path / "registry", now_ns=lambda: next(ticks))


def agent_bundle(folder, seed=1):
    zero = write_bundle_zero(folder.with_name(f"{folder.name}-zero"))
    return write_bundle(folder, static_rule_onnx(), None, {**zero.metadata, "kind": "ppo", "seed": seed}).folder


def evidence(established=True, **more):
    row = {"a": "agent", "b": "champion", "mean_diff_bps": -0.4, "ci_low": -0.6, "ci_high": -0.2}
    evaluation = {"comparisons": [row | {"established": established}]}
    return {"evaluation": evaluation, "champion": "champion", "challenger": "agent", **more}


def aliases(registry):
    return {alias: item.version for item in registry.list_versions() for alias in item.aliases}


def test_registry_when_new_then_has_no_champion(tmp_path):
    registry = Registry(tmp_path / "absent")
    assert registry.champion() is None
    assert registry.list_versions() == []
    assert registry.history() == []


def test_registry_when_bundle_zero_is_ensured_twice_then_is_one_champion(registry):
    assert registry.ensure_bundle_zero(write_bundle_zero) == registry.ensure_bundle_zero(write_bundle_zero) == 1
    version, bundle = registry.load_champion()
    assert (version, bundle.kind) == (1, "static")
    assert [record["action"] for record in registry.history()] == ["registered", "promoted"]
    assert aliases(registry) == {CHAMPION: 1}


def test_registry_when_the_same_bundle_is_registered_again_then_gives_its_version(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    folder = agent_bundle(tmp_path / "agent")
    assert registry.register(folder, {}) == registry.register(folder, {}) == 2
    assert aliases(registry) == {CHAMPION: 1, CHALLENGER: 2}
    assert len(registry.list_versions()) == 2


def test_registry_when_comparison_is_established_then_moves_and_journals(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), {})
    decision = registry.promote(version, "night", evidence())
    assert decision.moved
    assert registry.champion()[0] == version
    assert aliases(registry) == {CHAMPION: version}
    last = registry.history()[-1]
    assert (last["action"], last["version"], last["forced"]) == ("promoted", version, False)
    assert last["bundle_sha256"] == load_bundle(registry.champion()[1]).sha256
    kept = json.loads((registry.root / "evidence" / f"{last['evidence_sha256']}.json").read_text())
    assert kept == evidence()


@pytest.mark.parametrize(
    "proof, words",
    [
        (evidence(established=False), "not established"),
        ({}, "no evaluation"),
        (evidence(champion_sha256="0" * 64), "champion_sha256"),
        (evidence(challenger_sha256="0" * 64), "challenger_sha256"),
    ],
)
def test_registry_when_evidence_does_not_carry_then_keeps_and_journals(registry, tmp_path, proof, words):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), {})
    decision = registry.promote(version, "night", proof)
    assert not decision.moved
    assert words in decision.reason
    assert registry.champion()[0] == 1
    assert registry.history()[-1]["action"] == "kept"


def test_registry_when_forced_then_moves_and_the_record_says_so(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), {})
    assert registry.promote(version, "by hand", force=True).moved
    assert registry.history()[-1]["forced"] is True


def test_registry_when_promoted_without_evidence_then_judges_what_was_registered(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), evidence())
    assert registry.promote(version, "by hand").moved


def test_registry_when_rolled_back_then_earlier_champion_is_live_and_history_knows_when(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), {})
    registry.promote(version, "night", evidence())
    assert registry.rollback("it trades badly") == 1
    assert registry.champion()[0] == 1
    moves = [record for record in registry.history() if "signature" in record]
    assert [registry.live_at(record["ts_ns"])[0] for record in moves] == [1, 2, 1]
    assert registry.live_at(moves[0]["ts_ns"] - 1) is None
    with pytest.raises(InputError, match="no earlier champion"):
        registry.rollback("again")


def test_registry_when_champion_bundle_is_tampered_with_then_refuses_naming_both_hashes(registry):
    registry.ensure_bundle_zero(write_bundle_zero)
    _, folder = registry.champion()
    path = folder / "metadata.json"
    path.write_text(path.read_text().replace("0.2", "0.3"))
    with pytest.raises(SignatureError) as caught:
        registry.champion()
    assert folder.name in str(caught.value)
    assert len(set(re.findall("[0-9a-f]{64}", str(caught.value)))) == 2
    with pytest.raises(SignatureError):
        registry.load_champion()


def test_registry_when_journal_is_rechained_without_the_key_then_refuses(registry, tmp_path):
    from serving.journal import Journal

    registry.ensure_bundle_zero(write_bundle_zero)
    other = registry.register(agent_bundle(tmp_path / "agent"), {})
    records = registry.history()
    path = registry.root / "journal.jsonl"
    path.unlink()
    forged = Journal(path)
    sha256 = registry.list_versions()[other - 1].sha256
    for record in records:
        fields = {k: v for k, v in record.items() if k not in ("sequence", "previous", "hash")}
        forged.append(fields | ({"version": other, "bundle_sha256": sha256} if record["action"] == "promoted" else {}))
    with pytest.raises(SignatureError, match="signature"):
        registry.champion()


def test_registry_when_killed_between_journal_and_alias_then_next_call_repairs(registry, tmp_path, monkeypatch):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), {})
    monkeypatch.setattr(Registry, "_apply_aliases", lambda self: None)
    registry.promote(version, "night", evidence())
    assert aliases(registry) == {CHAMPION: 1, CHALLENGER: version}
    monkeypatch.undo()
    assert aliases(registry) == {CHAMPION: version}


def test_registry_when_killed_between_version_and_journal_then_register_finishes(registry, tmp_path, monkeypatch):
    folder = agent_bundle(tmp_path / "agent")

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Registry, "_append", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.register(folder, {})
    monkeypatch.undo()
    assert registry.register(folder, {}) == 1
    assert [record["action"] for record in registry.history()] == ["registered"]


def test_registry_when_alias_was_moved_by_hand_then_journal_wins(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    version = registry.register(agent_bundle(tmp_path / "agent"), {})
    registry._client.set_registered_model_alias(MODEL_NAME, CHAMPION, str(version))
    assert aliases(registry)[CHAMPION] == 1


def test_registry_when_opened_again_then_goes_on(registry, tmp_path):
    registry.ensure_bundle_zero(write_bundle_zero)
    again = Registry(registry.root)
    version = again.register(agent_bundle(tmp_path / "agent"), {})
    assert again.promote(version, "night", evidence()).moved
    assert registry.champion()[0] == version


def test_registry_when_version_is_unknown_then_lists_those_there_are(registry):
    registry.ensure_bundle_zero(write_bundle_zero)
    with pytest.raises(InputError, match=r"no version 9; there are \[1\]"):
        registry.promote(9, "x")


def test_registry_when_champion_is_promoted_again_then_nothing_changes(registry):
    registry.ensure_bundle_zero(write_bundle_zero)
    before = registry.history()
    assert not registry.promote(1, "again").moved
    assert registry.history() == before


def test_registry_when_key_lies_elsewhere_then_nothing_secret_is_below_root(tmp_path):
    key = tmp_path / "safe" / "promoter.pem"
    registry = Registry(tmp_path / "registry", private_key_path=key)
    registry.ensure_bundle_zero(write_bundle_zero)
    assert key.exists()
    assert not (registry.root / "keys").exists()
    assert registry.champion()[0] == 1
