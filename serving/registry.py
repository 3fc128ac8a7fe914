"""Which policy is live: versions, champion and challenger, signed promotion, rollback, and what was live when.

MLflow (SQLite) holds the registered model `execution-policy`, its versions and the aliases `champion` and `challenger`.
The journal beside it is the truth about the aliases: a move is journalled, then applied, so that what a crash left
undone is done by the next call. Layout below `root`: `registry.db`, `bundles/<sha256>/`, `evidence/<sha256>.json`,
`journal.jsonl`, `keys/promoter.pem` (and `.pub`).
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import InputError
from serving.contracts.bundle import Bundle, bundle_sha256, load_bundle
from serving.journal import Journal, Record, canonical_json, sync_folder
from serving.promotion import MODEL_NAME, Decision, decide_promotion, live_stack, signed_part
from serving.signing import SignatureError, Signer, Verifier, open_signer, open_verifier, public_key_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
_SHA_TAG = "bundle_sha256"


@dataclass(frozen=True)
class Version:
    """One registered bundle."""

    version: int
    sha256: str  # of the bundle's content
    kind: str  # "static" or "ppo"
    bundle_dir: Path
    aliases: tuple[str, ...]  # of "champion", "challenger"
    created_ns: int  # UTC


class Registry:
    """The registry below `root`. Calls may come from several processes: those that write take turns by a file lock."""

    def __init__(
        self, root: Path, private_key_path: Path | None = None, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """Name the registry; nothing is created before the first write.

        `private_key_path` is the promoter's key (default `root/keys/promoter.pem`), created at the first promotion;
        its `.pub` neighbour is the key that `champion` trusts. `now_ns` gives the UTC time of journal records.
        """
        self.root = root
        self._private_key_path = private_key_path or root / "keys" / "promoter.pem"
        self._now_ns = now_ns
        self._journal = Journal(root / "journal.jsonl")

    def ensure_bundle_zero(self, write: Callable[[Path], object]) -> int:
        """Make sure that there is a champion: without one, `write` a static rule's bundle into a folder and promote it.

        Pass `training.execution.static_rule.write_bundle_zero`. Returns the champion's version.
        """
        with self._locked():
            stack = live_stack(self._journal.read().records)
            if stack:
                return stack[-1]
            staged = self.root / f".bundle-zero-{os.getpid()}"
            shutil.rmtree(staged, ignore_errors=True)
            try:
                write(staged)
                version = self._register(staged, {})
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            self._move("promoted", version, "bundle 0: the static rule is champion until an agent beats it", {}, False)
            return version

    def register(self, bundle_dir: Path, evidence: Mapping[str, Any]) -> int:
        """Copy a bundle in, give it a version and make it the challenger; the same content gets its version again.

        `evidence` (JSON-able) is kept beside it and judged by `promote` when that is given none.
        Raises BundleError when the bundle is not sound.
        """
        with self._locked():
            version = self._register(bundle_dir, evidence)
            if version not in live_stack(self._journal.read().records)[-1:]:
                self._client.set_registered_model_alias(MODEL_NAME, CHALLENGER, str(version))
            return version

    def promote(
        self, version: int, reason: str, evidence: Mapping[str, Any] | None = None, force: bool = False
    ) -> Decision:
        """Make `version` the champion if the evidence carries it, and journal the decision, moved or kept.

        `evidence` is `{"evaluation": content of evaluation.json, "champion": name, "challenger": name}` with the names
        under which the two took part; optional `champion_sha256` and `challenger_sha256` must be the bundles that are
        compared. None takes what the version was registered with. `force` moves without asking, and the record says so.
        Raises InputError where there is no such version.
        """
        with self._locked():
            target = self._version(version)
            evidence = self._evidence_of(version) if evidence is None else evidence
            decision = self._judge(target, evidence, force)
            if decision.moved:
                self._move("promoted", version, f"{reason}: {decision.reason}", evidence, force)
            elif decision.changes:
                # signed too: what was judged and found sound may shadow the champion
                self._append("kept", version, f"{reason}: {decision.reason}", evidence, force, self._signer)
            return decision

    def rollback(self, reason: str) -> int:
        """Return to the champion before the present one and give its version; raises InputError where there is none."""
        with self._locked():
            stack = live_stack(self._journal.read().records)
            if len(stack) < 2:
                raise InputError(f"{self.root}: no earlier champion to roll back to; {len(stack)} promoted so far")
            self._check_content(self._version(stack[-2]))
            self._move("rolled_back", stack[-2], reason, {}, False)
            return stack[-2]

    def champion(self) -> tuple[int, Path] | None:
        """Version and bundle folder of the champion, or None before the first promotion.

        Verified on the way: the journal's chain, the promotion's signature, and the bundle's bytes against the signed
        sha256. Raises JournalError or SignatureError where one fails: a tampered bundle is refused, never served.
        """
        record = self._last_move(None)
        return None if record is None else (record["version"], self._verify_move(record))

    def load_champion(self) -> tuple[int, Bundle] | None:
        """The champion, checked as `champion` does and loaded; the very bytes that were loaded are the signed ones."""
        record = self._last_move(None)
        if record is None:
            return None
        bundle = load_bundle(self._verify_move(record))
        if bundle.sha256 != record["bundle_sha256"]:
            raise SignatureError(f"{bundle.folder}: {bundle.sha256} loaded, {record['bundle_sha256']} signed; refused")
        return record["version"], bundle

    def live_at(self, ts_ns: int) -> tuple[int, str] | None:
        """Version and bundle sha256 that were champion at `ts_ns` (int64 UTC), or None before the first promotion."""
        record = self._last_move(ts_ns)
        return None if record is None else (record["version"], record["bundle_sha256"])

    def history(self) -> list[Record]:
        """The journal's records, oldest first: `action` registered, promoted, kept, rolled_back or tail_repaired."""
        return [{"version": None, **record} for record in self._journal.read().records]

    def journal_warning(self) -> str | None:
        """What a crash left behind the journal's last record, as a sentence; None when nothing."""
        return self._journal.read().torn_tail_message

    def list_versions(self) -> list[Version]:
        """All registered versions, oldest first."""
        if not (self.root / "registry.db").exists():
            return []
        with self._locked():
            aliases = self._client.get_registered_model(MODEL_NAME).aliases
            return sorted((self._to_version(item, aliases) for item in self._search("")), key=lambda item: item.version)

    def _judge(self, target: Version, evidence: Mapping[str, Any], force: bool) -> Decision:
        self._check_content(target)
        stack = live_stack(self._journal.read().records)
        if stack and stack[-1] == target.version:
            return Decision(False, f"version {target.version} is the champion already", changes=False)
        if force:
            return Decision(True, "forced by a person, evidence not judged")
        if not stack:
            return Decision(True, "there was no champion")
        champion = self._version(stack[-1])
        for key, item in (("champion_sha256", champion), ("challenger_sha256", target)):
            if evidence.get(key, item.sha256) != item.sha256:
                return Decision(
                    False, f"the evidence is about {key} {evidence[key]}, but version {item.version} is {item.sha256}"
                )
        if not {"evaluation", "champion", "challenger"} <= set(evidence):
            return Decision(False, "no evaluation against the champion was given")
        return decide_promotion(evidence["evaluation"], evidence["champion"], evidence["challenger"])

    def _register(self, bundle_dir: Path, evidence: Mapping[str, Any]) -> int:
        bundle = load_bundle(bundle_dir)
        known = self._search(f" and tag.{_SHA_TAG}='{bundle.sha256}'")
        if known:
            version = int(known[0].version)
        else:
            self._store(bundle_dir, bundle.sha256)
            created = self._client.create_model_version(
                MODEL_NAME, source=f"bundles/{bundle.sha256}", tags={_SHA_TAG: bundle.sha256, "kind": bundle.kind}
            )
            version = int(created.version)
        journalled = {r["version"] for r in self._journal.read().records if r["action"] == "registered"}
        if version not in journalled:
            self._append("registered", version, f"{bundle.kind} bundle", evidence, False)
        return version

    def _store(self, bundle_dir: Path, sha256: str) -> None:
        """Copy a bundle to its place under its own hash, whole or not at all."""
        target = self.root / "bundles" / sha256
        if target.exists() and bundle_sha256(target) == sha256:
            return
        staged = self.root / "bundles" / f".{sha256}.{os.getpid()}"
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(bundle_dir, staged)
        if bundle_sha256(staged) != sha256:
            raise InputError(f"{bundle_dir}: changed while it was registered; register it again")
        os.rename(staged, target)
        sync_folder(target.parent)

    def _move(self, action: str, version: int, reason: str, evidence: Mapping[str, Any], force: bool) -> None:
        """Sign and journal a move, then apply it to MLflow's aliases."""
        self._append(action, version, reason, evidence, force, self._signer)
        self._apply_aliases()

    def _append(
        self,
        action: str,
        version: int,
        reason: str,
        evidence: Mapping[str, Any],
        force: bool,
        signer: Signer | None = None,
    ) -> None:
        fields: Record = {
            "action": action,
            "version": version,
            "bundle_sha256": self._version(version).sha256,
            "reason": reason,
            "evidence_sha256": self._store_evidence(evidence),
            "forced": force,
            "ts_ns": self._later_ns(),
        }
        if signer is not None:
            fields["signature"] = signer.sign(signed_part(fields))
        self._journal.append(fields)

    def _later_ns(self) -> int:
        """Now, and after every record whatever the clock says: a signed record whose time goes back is refused."""
        past = [record["ts_ns"] for record in self._journal.read().records if "ts_ns" in record]
        return max(self._now_ns(), past[-1] + 1) if past else self._now_ns()

    def _apply_aliases(self) -> None:
        """Bring MLflow's champion alias to what the journal says; drop a challenger that became the champion."""
        stack = live_stack(self._journal.read().records)
        aliases = self._client.get_registered_model(MODEL_NAME).aliases
        if stack and int(aliases.get(CHAMPION, 0)) != stack[-1]:
            self._client.set_registered_model_alias(MODEL_NAME, CHAMPION, str(stack[-1]))
        if stack and int(aliases.get(CHALLENGER, 0)) == stack[-1]:
            self._client.delete_registered_model_alias(MODEL_NAME, CHALLENGER)

    def _last_move(self, until_ns: int | None) -> Record | None:
        moves = [r for r in self._journal.read().records if r["action"] in ("promoted", "rolled_back")]
        if until_ns is not None:
            moves = [r for r in moves if r["ts_ns"] <= until_ns]
        return moves[-1] if moves else None

    def _verify_move(self, record: Record) -> Path:
        what = f"{self._journal.path}:{record['sequence']}"
        self._verifier.verify(signed_part(record), str(record.get("signature", "")), what)
        folder = self.root / "bundles" / record["bundle_sha256"]
        actual = bundle_sha256(folder)
        if actual != record["bundle_sha256"]:
            raise SignatureError(
                f"{folder}: content has sha256 {actual}, the signed promotion names {record['bundle_sha256']}; "
                "refused: roll back, or register the bundle again"
            )
        return folder

    def _check_content(self, item: Version) -> None:
        actual = bundle_sha256(item.bundle_dir)
        if actual != item.sha256:
            raise SignatureError(
                f"{item.bundle_dir}: content has sha256 {actual}, version {item.version} was registered as "
                f"{item.sha256}; refused: register the bundle again"
            )

    def _version(self, version: int) -> Version:
        found = {int(item.version): item for item in self._search("")}
        if version not in found:
            raise InputError(f"{self.root}: no version {version}; there are {sorted(found) or 'none'}")
        return self._to_version(found[version], self._client.get_registered_model(MODEL_NAME).aliases)

    def _to_version(self, item: Any, aliases: Mapping[str, Any]) -> Version:
        number = int(item.version)
        return Version(
            version=number,
            sha256=item.tags[_SHA_TAG],
            kind=item.tags["kind"],
            bundle_dir=self.root / "bundles" / item.tags[_SHA_TAG],
            aliases=tuple(sorted(name for name, holder in aliases.items() if int(holder) == number)),
            created_ns=int(item.creation_timestamp) * 1_000_000,
        )

    def _search(self, condition: str) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name='{MODEL_NAME}'{condition}", page_token=token)
            found.extend(page)
            if not page.token:
                return found
            token = str(page.token)

    def _store_evidence(self, evidence: Mapping[str, Any]) -> str | None:
        """Keep evidence under its own hash; None for none."""
        if not evidence:
            return None
        try:
            raw = canonical_json(evidence)
        except (TypeError, ValueError) as error:
            raise InputError(f"the evidence is not plain JSON ({error}); give text, numbers and lists") from error
        sha256 = hashlib.sha256(raw).hexdigest()
        path = self.root / "evidence" / f"{sha256}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = path.with_name(f".{sha256}.{os.getpid()}")
            staged.write_bytes(raw)
            os.replace(staged, path)
        return sha256

    def _evidence_of(self, version: int) -> dict[str, Any]:
        """What a version was registered with."""
        for record in self._journal.read().records:
            if record["action"] == "registered" and record["version"] == version and record["evidence_sha256"]:
                raw = (self.root / "evidence" / f"{record['evidence_sha256']}.json").read_bytes()
                if hashlib.sha256(raw).hexdigest() != record["evidence_sha256"]:
                    raise SignatureError(f"evidence of version {version} is not what was registered; give it again")
                evidence: dict[str, Any] = json.loads(raw)
                return evidence
        return {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the registry's lock; on entry, finish what a crash left between journal and aliases."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._apply_aliases()
            yield

    @cached_property
    def _signer(self) -> Signer:
        return open_signer(self._private_key_path)

    @cached_property
    def _verifier(self) -> Verifier:
        return open_verifier(public_key_path(self._private_key_path))

    @cached_property
    def _client(self) -> "MlflowClient":
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import logging

        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        uri = f"sqlite:///{(self.root / 'registry.db').resolve()}"
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        try:
            client.get_registered_model(MODEL_NAME)
        except MlflowException:
            client.create_registered_model(MODEL_NAME, description="Execution policies; aliases move by promotion only")
        return client
