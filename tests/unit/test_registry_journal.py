import json

import pytest

from serving.journal import GENESIS, Journal, JournalError, record_hash


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.jsonl")


def test_journal_when_appended_then_chains_sequence_and_hash(journal):
    first = journal.append({"action": "a"})
    second = journal.append({"action": "b"})
    assert (first["sequence"], first["previous"]) == (1, GENESIS)
    assert (second["sequence"], second["previous"]) == (2, first["hash"])
    assert second["hash"] == record_hash(second)
    assert journal.read().records == (first, second)


def test_journal_when_absent_then_is_empty(journal):
    assert journal.read().records == ()
    assert journal.read().torn_tail_message is None


def test_journal_when_last_line_is_torn_then_reports_and_next_append_sets_it_aside(journal):
    first = journal.append({"action": "a"})
    torn = b'{"action": "half'
    with open(journal.path, "ab") as file:
        file.write(torn)
    assert journal.read().records == (first,)
    assert "cut off" in journal.read().torn_tail_message
    last = journal.append({"action": "b"})
    actions = [record["action"] for record in journal.read().records]
    assert actions == ["a", "tail_repaired", "b"]
    assert last["sequence"] == 3
    assert journal.path.with_name("journal.jsonl.torn-2").read_bytes() == torn
    assert journal.read().torn_tail == b""


@pytest.mark.parametrize("edit", ["value", "drop", "swap", "garbage"])
def test_journal_when_a_line_was_changed_then_names_the_line(journal, edit):
    for action in "abc":
        journal.append({"action": action})
    lines = journal.path.read_bytes().splitlines(keepends=True)
    if edit == "value":
        record = json.loads(lines[1]) | {"action": "x"}
        lines[1] = json.dumps(record).encode() + b"\n"
    elif edit == "drop":
        del lines[1]
    elif edit == "swap":
        lines[0], lines[1] = lines[1], lines[0]
    else:
        lines[1] = b"\xff\n"
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=rf"journal\.jsonl:{1 if edit == 'swap' else 2}"):
        journal.read()
    before = journal.path.read_bytes()
    with pytest.raises(JournalError):
        journal.append({"action": "d"})
    assert journal.path.read_bytes() == before


def test_journal_when_a_value_is_not_a_number_then_refuses_and_writes_nothing(journal):
    with pytest.raises(ValueError):
        journal.append({"value": float("nan")})
    assert not journal.path.exists()
