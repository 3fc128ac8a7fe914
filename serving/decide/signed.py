"""Which bundles may be loaded: those that a registry's journal names in records signed by the promoter.

Reads `journal.jsonl` and `bundles/<sha256>/` below the registry's root and needs the promoter's public key alone:
neither the private key nor MLflow's database is of any use here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.contracts.bundle import Bundle, load_bundle
from serving.contracts.smoke import smoke_fault
from serving.journal import Journal, JournalError, Record
from serving.promotion import MOVES, signed_part
from serving.signing import SignatureError, Verifier

SIGNED = (*MOVES, "kept")


@dataclass(frozen=True)
class Admission:
    """A bundle that the promoter signed for."""

    version: int
    sha256: str
    action: str  # promoted, rolled_back, kept
    sequence: int  # of the journal's record


@dataclass(frozen=True)
class Standing:
    """What a journal says at one moment; every admission in it bears the promoter's signature."""

    champion: Admission | None
    challenger: Admission | None  # judged since the last move, and not promoted
    admitted: Mapping[str, Admission]  # by sha256, the latest of each
    length: int
    head: str  # hash of the last record


class SignedRegistry:
    """Reads a registry again and again, and notices when what it has seen is no longer there."""

    def __init__(self, root: Path, verifier: Verifier) -> None:
        """Name the registry; nothing is read yet."""
        self.root = root
        self._journal = Journal(root / "journal.jsonl")
        self._verifier = verifier
        self._seen = (0, "")  # length and head of the last sound journal
        self._verified: set[str] = set()  # hashes of records whose signature was checked

    def changed(self) -> tuple[int, int, int]:
        """Something that differs whenever the journal does: inode, size and time of change, zeros without one."""
        try:
            found = self._journal.path.stat()
        except FileNotFoundError:
            return 0, 0, 0
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> Standing:
        """What stands now, the chain and each signature verified.

        Raises JournalError where the chain is broken, a record that was seen is gone, or time goes back between moves
        (an old record, signed once, was appended again), and SignatureError where a signature is not the promoter's.
        """
        records = self._journal.read().records
        length, head = self._seen
        if len(records) < length or (length and records[length - 1]["hash"] != head):
            raise JournalError(
                f"{self._journal.path}: {len(records)} records, of which the {length} that were here are not all: "
                "it was rewound; restore it from a copy"
            )
        signed = [record for record in records if record["action"] in SIGNED and self._is_signed(record)]
        for earlier, later in zip(signed, signed[1:], strict=False):
            if later["ts_ns"] <= earlier["ts_ns"]:
                raise JournalError(
                    f"{self._journal.path}:{later['sequence']}: signed at {later['ts_ns']} ns, not after record "
                    f"{earlier['sequence']} at {earlier['ts_ns']} ns: an old record was appended again"
                )
        admissions = [
            Admission(int(record["version"]), str(record["bundle_sha256"]), str(record["action"]), record["sequence"])
            for record in signed
        ]
        champion = next((item for item in reversed(admissions) if item.action in MOVES), None)
        last = admissions[-1] if admissions else None
        is_challenger = last is not None and last.action == "kept" and champion and last.sha256 != champion.sha256
        self._seen = (len(records), records[-1]["hash"]) if records else self._seen
        return Standing(
            champion, last if is_challenger else None, {a.sha256: a for a in admissions}, *self._seen
        )  # fmt: skip

    def load(self, admission: Admission) -> Bundle:
        """The admitted bundle: its bytes are the signed ones, and it answers its smoke test as recorded.

        Raises SignatureError or BundleError naming what differs.
        """
        folder = self.root / "bundles" / admission.sha256
        bundle = load_bundle(folder)
        if bundle.sha256 != admission.sha256:
            raise SignatureError(f"{folder}: content has sha256 {bundle.sha256}, signed is {admission.sha256}; refused")
        if (fault := smoke_fault(bundle)) is not None:
            raise SignatureError(f"{folder}: the smoke test failed: {fault}; refused")
        return bundle

    def _is_signed(self, record: Record) -> bool:
        """True where the promoter signed it; a `kept` record of before these were signed admits nothing."""
        signature = str(record.get("signature", ""))
        if record["action"] not in MOVES and not signature:
            return False
        if record["hash"] not in self._verified:
            self._verifier.verify(signed_part(record), signature, f"{self._journal.path}:{record['sequence']}")
            self._verified.add(record["hash"])
        return True
