"""What was sent under a sequence number, from QuickFIX's store: as it was sent, the newest, or nothing."""

import pytest
import quickfix

from serving.wire import fix_store
from serving.wire.fix_store import sent_message

SESSION = quickfix.SessionID("FIX.4.4", "GATE", "VENUE")


@pytest.fixture()
def store(tmp_path):
    """A store of QuickFIX's own with 300 messages."""
    settings = quickfix.SessionSettings()
    own = quickfix.Dictionary()
    for name, value in (("ConnectionType", "acceptor"), ("FileStorePath", str(tmp_path)), ("StartTime", "00:00:00"),
                        ("EndTime", "00:00:00"), ("UseDataDictionary", "N")):  # fmt: skip
        own.setString(name, value)
    settings.set(SESSION, own)
    factory = quickfix.FileStoreFactory(settings)
    kept = factory.create(quickfix.UtcTimeStamp(), SESSION)
    for number in range(1, 301):
        kept.set(number, message(number))
    return tmp_path


def message(number):
    return f"8=FIX.4.4\x019=1\x0135=D\x0134={number}\x0111=o{number}\x0158={'x' * (number % 7)}\x0110=000\x01"


def test_message_is_found_by_its_number_as_it_was_sent(store):
    for number in (1, 2, 30, 299, 300):
        assert sent_message(store, SESSION, number) == message(number)


@pytest.mark.parametrize("number", [0, -1, 301, 10**12])
def test_number_that_was_not_sent_is_none(store, number):
    assert sent_message(store, SESSION, number) is None


def test_only_the_end_of_a_long_index_is_read(store, monkeypatch):
    monkeypatch.setattr(fix_store, "TAIL", 100)
    assert sent_message(store, SESSION, 300) == message(300)
    assert sent_message(store, SESSION, 1) is None


def test_files_that_are_not_there_or_say_something_else_give_none(store, tmp_path):
    assert sent_message(tmp_path / "nowhere", SESSION, 1) is None
    body = store / "FIX.4.4-GATE-VENUE.body"
    body.write_bytes(body.read_bytes().replace(b"34=300\x01", b"34=999\x01"))
    assert sent_message(store, SESSION, 300) is None
    (store / "FIX.4.4-GATE-VENUE.header").write_bytes(b"1,0,x ")
    assert sent_message(store, SESSION, 1) is None
