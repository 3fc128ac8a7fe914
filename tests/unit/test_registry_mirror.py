"""What a serving pod copies of a registry it takes only when it is signed, whole, and goes on where the copy ends."""

import shutil
from itertools import count

import pytest

from feature_repo.errors import InputError, ShortfallError
from serving.decide.signed import SignedRegistry
from serving.journal import JournalError
from serving.mirror import JOURNAL, ArtifactProxy, copy, main, publish
from serving.registry import Registry
from serving.signing import SignatureError, open_verifier
from training.execution.static_rule import static_rule_onnx, write_bundle_zero


class FolderShelf:
    """A shelf on disk that counts what is written."""

    def __init__(self, root):
        self.root, self.written = root, []

    def names(self, folder):
        return sorted(path.name for path in (self.root / folder).glob("*") if path.is_file())

    def read(self, name, limit):
        path = self.root / name
        return path.read_bytes() if path.exists() else None

    def write(self, name, content):
        self.written.append(name)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture(scope="module")
def first_registry(tmp_path_factory):
    root = tmp_path_factory.mktemp("mirror") / "registry"
    Registry(root).ensure_bundle_zero(write_bundle_zero)
    return root


@pytest.fixture
def registry(first_registry, tmp_path):
    shutil.copytree(first_registry, tmp_path / "registry")
    ticks = count(10**19)
    return Registry(tmp_path / "registry", now_ns=lambda: next(ticks))


@pytest.fixture
def shelf(tmp_path):
    return FolderShelf(tmp_path / "shelf")


@pytest.fixture
def verifier(registry):
    return open_verifier(registry.root / "keys" / "promoter.pub")


def promote_another(registry, tmp_path, seed=1):
    from serving.contracts.bundle import write_bundle

    zero = write_bundle_zero(tmp_path / f"zero-{seed}")
    folder = write_bundle(
        tmp_path / f"agent-{seed}", static_rule_onnx(), None, {**zero.metadata, "kind": "ppo", "seed": seed}
    ).folder
    version = registry.register(folder, {})
    registry.promote(version, "by a person", force=True)
    return version


def test_mirror_when_a_champion_moves_then_the_copy_follows_and_holds_the_same_bytes(
    registry, shelf, verifier, tmp_path
):
    target = tmp_path / "copy"
    publish(registry.root, shelf)
    assert shelf.written[-1] == JOURNAL  # never a journal that names what is not there yet
    assert copy(shelf, target, verifier)
    assert not copy(shelf, target, verifier)
    version = promote_another(registry, tmp_path)
    written = publish(registry.root, shelf)
    assert written == 3  # policy, metadata, journal: what was published is not written again
    assert copy(shelf, target, verifier)
    standing = SignedRegistry(target, verifier).read()
    assert standing.champion is not None and standing.champion.version == version
    for name in ("policy.onnx", "metadata.json"):
        relative = f"bundles/{standing.champion.sha256}/{name}"
        assert (target / relative).read_bytes() == (registry.root / relative).read_bytes()
    assert publish(registry.root, shelf) == 0


def test_mirror_when_a_published_bundle_was_changed_then_keeps_the_former_champion(registry, shelf, verifier, tmp_path):
    target = tmp_path / "copy"
    publish(registry.root, shelf)
    copy(shelf, target, verifier)
    before = (target / JOURNAL).read_bytes()
    promote_another(registry, tmp_path)
    publish(registry.root, shelf)
    sha256 = registry.history()[-1]["bundle_sha256"]
    (shelf.root / "bundles" / sha256 / "policy.onnx").write_bytes(b"another policy")
    with pytest.raises(ShortfallError, match=f"{sha256}: its content has sha256"):
        copy(shelf, target, verifier)
    assert (target / JOURNAL).read_bytes() == before
    assert sorted(path.name for path in target.iterdir()) == ["bundles", JOURNAL]
    assert sha256 not in {path.name for path in (target / "bundles").iterdir()}


def test_mirror_when_the_journal_is_of_another_promoter_then_refuses(registry, shelf, verifier, tmp_path):
    stranger = Registry(tmp_path / "stranger")
    stranger.ensure_bundle_zero(write_bundle_zero)
    publish(stranger.root, shelf)
    with pytest.raises(SignatureError, match="is not by the key"):
        copy(shelf, tmp_path / "copy", verifier)
    assert not (tmp_path / "copy" / JOURNAL).exists()


def test_mirror_when_the_journal_is_rewound_then_refuses(registry, shelf, verifier, tmp_path):
    publish(registry.root, shelf)
    earlier = (registry.root / JOURNAL).read_bytes()
    promote_another(registry, tmp_path)
    publish(registry.root, shelf)
    copy(shelf, tmp_path / "copy", verifier)
    shelf.write(JOURNAL, earlier)  # an old champion, once rightly signed
    with pytest.raises(JournalError, match="does not go on where the copy ends"):
        copy(shelf, tmp_path / "copy", verifier)


@pytest.mark.parametrize("keep", [1, -1])
def test_mirror_when_the_journal_is_cut_off_then_tries_again_later(registry, shelf, verifier, tmp_path, keep):
    publish(registry.root, shelf)
    shelf.write(JOURNAL, (registry.root / JOURNAL).read_bytes()[:keep])
    with pytest.raises(JournalError, match="ends in the middle of a line"):
        copy(shelf, tmp_path / "copy", verifier)
    shelf.write(JOURNAL, (registry.root / JOURNAL).read_bytes())
    assert copy(shelf, tmp_path / "copy", verifier)


def test_publish_when_the_store_holds_another_history_then_leaves_it(registry, shelf, tmp_path):
    shelf.write(JOURNAL, b'{"action":"promoted"}\n')
    with pytest.raises(JournalError, match="no beginning of it"):
        publish(registry.root, shelf)
    assert (shelf.root / JOURNAL).read_bytes() == b'{"action":"promoted"}\n'


def test_artifact_proxy_when_the_server_is_away_then_says_what_it_was_asked(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ShortfallError, match="artifact store, list "):
        ArtifactProxy("http://127.0.0.1:9", "synthetic").read(JOURNAL, 100)
    with pytest.raises(InputError, match="http or https address"):
        ArtifactProxy("sqlite:///registry.db", "synthetic")


def test_mirror_process_when_a_setting_is_missing_then_ends_with_2(capsys):
    assert main(["--source", "Not A Name"]) == 2
    assert "error:" in capsys.readouterr().err
