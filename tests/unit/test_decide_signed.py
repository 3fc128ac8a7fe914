import json
import shutil
from itertools import count

import pytest
from policy_bundles import random_bundle

from feature_repo.errors import ShortfallError
from serving.contracts.bundle import load_bundle
from serving.decide.catalogue import Catalogue
from serving.decide.protocol import DecideError
from serving.decide.signed import SignedRegistry
from serving.journal import GENESIS, Journal, JournalError, canonical_json, record_hash
from serving.promotion import signed_part
from serving.registry import Registry
from serving.signing import SignatureError, open_signer, open_verifier
from training.execution.static_rule import write_bundle_zero


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """A registry in which bundle 0 was followed by an agent, and a second agent was judged and kept out."""
    root = tmp_path_factory.mktemp("promoted") / "registry"
    ticks = count(1_000)
    registry = Registry(root, now_ns=lambda: next(ticks))
    registry.ensure_bundle_zero(write_bundle_zero)
    for seed, force in ((1, True), (2, False)):
        folder = random_bundle(root.parent / f"agent{seed}", seed=seed).folder
        registry.promote(registry.register(folder, {}), "night", force=force)
    return root


@pytest.fixture
def root(tmp_path, promoted):
    shutil.copytree(promoted, tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def signed(root):
    return SignedRegistry(root, open_verifier(root / "keys" / "promoter.pub"))


def rechained(root, change):
    """Change the journal's records and chain them anew, as somebody without the promoter's key could."""
    path = root / "journal.jsonl"
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    records = change(records)
    previous, lines = GENESIS, []
    for sequence, record in enumerate(records, start=1):
        record |= {"sequence": sequence, "previous": previous}
        previous = record["hash"] = record_hash(record)
        lines.append(canonical_json(record) + b"\n")
    path.write_bytes(b"".join(lines))


def test_signed_registry_when_read_then_names_champion_and_challenger(signed, root):
    standing = signed.read()
    versions = Registry(root).list_versions()
    assert (standing.champion.version, standing.champion.sha256) == (2, versions[1].sha256)
    assert (standing.challenger.version, standing.challenger.action) == (3, "kept")
    assert set(standing.admitted) == {version.sha256 for version in versions}


def test_signed_registry_when_it_is_a_bare_mirror_then_journal_bundles_and_public_key_suffice(root, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    shutil.copy(root / "journal.jsonl", mirror)
    shutil.copytree(root / "bundles", mirror / "bundles")
    found = SignedRegistry(mirror, open_verifier(root / "keys" / "promoter.pub"))
    assert found.load(found.read().champion).sha256 == found.read().champion.sha256


def test_signed_registry_when_rolled_back_then_the_earlier_champion_stands_and_nothing_shadows(signed, root):
    Registry(root).rollback("slippage")
    standing = signed.read()
    assert (standing.champion.version, standing.challenger) == (1, None)


def test_signed_registry_when_the_challenger_is_promoted_then_it_no_longer_shadows(signed, root):
    Registry(root).promote(3, "by hand", force=True)
    standing = signed.read()
    assert (standing.champion.version, standing.challenger) == (3, None)


def test_signed_registry_when_empty_then_nothing_stands(root, tmp_path):
    empty = SignedRegistry(tmp_path / "nowhere", open_verifier(root / "keys" / "promoter.pub"))
    assert empty.read().champion is None and empty.changed() == (0, 0, 0)


def forge_sha(records):
    records[-1]["bundle_sha256"] = "0" * 64
    return records


def forge_version(records):
    next(r for r in records if r["action"] == "promoted")["version"] = 9
    return records


def unsign(records):
    next(r for r in records if r["action"] == "promoted").pop("signature")
    return records


@pytest.mark.parametrize("change", [forge_sha, forge_version, unsign])
def test_signed_registry_when_a_record_was_changed_and_rechained_then_refuses(signed, root, change):
    rechained(root, change)
    with pytest.raises(SignatureError, match="is not by the key"):
        signed.read()


def test_signed_registry_when_signed_by_another_key_then_refuses(root, tmp_path):
    other = tmp_path / "other" / "promoter.pem"
    open_signer(other)
    with pytest.raises(SignatureError):
        SignedRegistry(root, open_verifier(other.with_suffix(".pub"))).read()


def test_signed_registry_when_an_old_promotion_is_appended_again_then_refuses(signed, root):
    rechained(root, lambda records: [*records, dict(next(r for r in records if r["action"] == "promoted"))])
    with pytest.raises(JournalError, match="appended again"):
        signed.read()


def test_signed_registry_when_what_it_saw_is_gone_then_refuses_the_rewound_journal(signed, root):
    signed.read()
    rechained(root, lambda records: records[:2])
    with pytest.raises(JournalError, match="rewound"):
        signed.read()


def test_signed_registry_when_a_record_without_signature_was_kept_before_these_were_signed_then_admits_nothing(
    signed, root
):
    def old(records):
        next(r for r in records if r["action"] == "kept").pop("signature")
        return records

    rechained(root, old)
    standing = signed.read()
    assert standing.challenger is None and standing.champion.version == 2


def test_signed_registry_when_the_line_is_torn_then_whole_records_stand(signed, root):
    with open(root / "journal.jsonl", "ab") as file:
        file.write(b'{"action": "promo')
    assert signed.read().champion.version == 2


@pytest.mark.parametrize("name", ["policy.onnx", "metadata.json"])
def test_signed_registry_when_a_bundle_was_tampered_with_then_refuses_to_load(signed, root, name):
    champion = signed.read().champion
    path = root / "bundles" / champion.sha256 / name
    path.write_bytes(path.read_bytes().replace(b"shortfall", b"shortfa11").replace(b"ppo", b"dqn"))
    with pytest.raises(ShortfallError):
        signed.load(champion)


def test_signed_registry_when_a_signed_bundle_fails_its_smoke_test_then_refuses_to_load(tmp_path):
    bundle = random_bundle(tmp_path / "bundle")
    path = bundle.folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["smoke"]["action"] = [(action + 1) % 4 for action in metadata["smoke"]["action"]]
    path.write_text(json.dumps(metadata))
    registry = Registry(tmp_path / "registry")
    registry.promote(registry.register(bundle.folder, {}), "a person signed it")
    signed = SignedRegistry(registry.root, open_verifier(registry.root / "keys" / "promoter.pub"))
    with pytest.raises(SignatureError, match="smoke test failed: action"):
        signed.load(signed.read().champion)


def test_registry_when_the_clock_goes_back_then_signed_time_does_not(root):
    registry = Registry(root, now_ns=lambda: 5)
    registry.promote(3, "by hand", force=True)
    stamps = [record["ts_ns"] for record in registry.history()]
    assert stamps == sorted(set(stamps))


@pytest.fixture
def catalogue(signed):
    refused = []
    found = Catalogue(signed, on_refusal=refused.append)
    found.refresh()
    found.told = refused
    return found


def test_catalogue_when_refreshed_then_champion_and_challenger_are_loaded(catalogue):
    policies = catalogue.policies()
    assert (policies.champion.version, policies.challenger.version) == (2, 3)
    assert [policy.version for policy in policies.loaded] == [2, 3]
    assert catalogue.told == []


def test_catalogue_when_another_is_promoted_then_it_is_announced_and_the_former_can_still_be_asked(catalogue, root):
    former = catalogue.champion
    Registry(root).promote(3, "by hand", force=True)
    catalogue.refresh()
    assert catalogue.champion.version == 3
    assert catalogue.loaded(former.sha256).policy == former


def test_catalogue_when_the_new_champion_was_tampered_with_then_the_former_stays_and_it_is_told_once(catalogue, root):
    former = catalogue.champion
    folder = random_bundle(root.parent / "agent4", seed=4).folder
    registry = Registry(root)
    registry.promote(registry.register(folder, {}), "by hand", force=True)
    sha256 = load_bundle(folder).sha256
    (root / "bundles" / sha256 / "policy.onnx").write_bytes(b"something else")
    catalogue.refresh()
    catalogue.refresh()
    assert catalogue.champion == former
    assert [refusal.what for refusal in catalogue.told] == [sha256] == [item.what for item in catalogue.refusals]


def test_catalogue_when_the_journal_is_broken_then_what_was_loaded_goes_on_and_it_is_told(catalogue, root):
    former = catalogue.policies()
    path = root / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"promoted", b"prom0ted"))
    catalogue.refresh()
    assert catalogue.policies() == former
    assert [refusal.what for refusal in catalogue.told] == ["journal"]


def test_catalogue_when_nothing_sound_was_ever_there_then_has_no_champion(root):
    path = root / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"promoted", b"prom0ted"))
    found = Catalogue(SignedRegistry(root, open_verifier(root / "keys" / "promoter.pub")))
    found.refresh()
    assert found.champion is None and found.refusals


def test_catalogue_when_a_loaded_bundle_changes_on_disk_then_it_is_told_and_memory_stays(catalogue, root):
    (root / "bundles" / catalogue.champion.sha256 / "policy.onnx").write_bytes(b"something else")
    catalogue.check()
    assert [refusal.what for refusal in catalogue.told] == [catalogue.champion.sha256]
    assert catalogue.loaded(catalogue.champion.sha256)


def test_catalogue_when_nobody_asks_for_a_former_champion_then_lets_go_of_it(signed, root):
    catalogue = Catalogue(signed, keep_s=0.0)
    catalogue.refresh()
    former = catalogue.champion.sha256
    Registry(root).promote(3, "by hand", force=True)
    catalogue.refresh()
    assert [policy.version for policy in catalogue.policies().loaded] == [3]
    with pytest.raises(DecideError, match=former):
        catalogue.loaded(former)


def test_journal_of_a_registry_when_read_by_the_follower_then_is_the_same_chain(root):
    last = Journal(root / "journal.jsonl").read().records[-1]
    assert signed_part(last) and last["hash"] == record_hash(last)
