"""Fuzzers: whatever bytes come, the journal and the contracts refuse them with their own errors."""

from contextlib import suppress

import msgspec
from gateway_world import BadDisk
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts.decisions import decode_decision
from serving.contracts.orders import ContractError, decode_report, decode_request, encode
from serving.gateway.events import Halted, decode_event, encode_event
from serving.gateway.journal import Journal, file_name, records
from serving.gateway.limits import Limits, LimitsError
from serving.gateway.people import PersonError, person
from serving.gateway.records import MAGIC, CorruptError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def journal(groups=3):
    disk = BadDisk()
    writer, _ = Journal.open(disk, 1)
    for group in range(groups):
        for place in range(2):
            writer.append(Halted(utc_ns=1, reason=f"{group} {place} " + "x" * 300))
        writer.commit()
    writer.close()
    return disk


SOUND = bytes(journal().written[file_name(1)])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2_000), st.booleans())
def test_journal_of_random_bytes_is_refused_or_ends_before_them(raw, begins_right):
    disk = BadDisk()
    disk.put(file_name(1), (MAGIC if begins_right else b"") + raw)
    try:
        writer, state = Journal.open(disk, 1)
    except CorruptError:
        return
    assert (begins_right or raw == MAGIC) and state.epoch == 1 and writer.sequence == 1


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_journal_with_bytes_changed_put_in_or_cut_out_never_gives_what_was_not_written(data):
    start = data.draw(st.integers(0, len(SOUND)))
    end = data.draw(st.integers(start, min(len(SOUND), start + 700)))
    changed = SOUND[:start] + data.draw(st.binary(max_size=700)) + SOUND[end:]
    disk = BadDisk()
    disk.put(file_name(1), changed)
    written = [record.payload for _, record in records(journal())]
    try:
        found = [record.payload for _, record in records(disk)]
    except CorruptError:
        return
    assert found == written[: len(found)]
    assert changed.startswith(SOUND) or len(found) < len(written)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), JSON.map(lambda value: msgspec.json.encode(value))))
def test_decoders_refuse_with_their_own_errors(raw):
    for decode in (decode_request, decode_report, decode_decision):
        with suppress(ContractError):
            assert encode(decode(raw)) == raw
    with suppress(ValueError):  # msgspec.DecodeError and ContractError are ValueErrors
        assert encode_event(decode_event(raw))


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_limits_refuse_any_other_document(document):
    try:
        Limits.parse(document)
    except LimitsError:
        return
    raise AssertionError("a document without limits was taken")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_limits_refuse_any_other_text(text):
    try:
        Limits.load(text)
    except LimitsError:
        return
    raise AssertionError("a text without limits was taken")


NAMES = st.characters(exclude_characters="\\")  # which escapes what follows, and so depends on the order


@settings(max_examples=300, deadline=None)
@given(st.text(NAMES, max_size=40), st.text(NAMES, max_size=10))
def test_subject_has_one_spelling(name, desk):
    try:
        who = person(f"CN={name},O={desk}")
    except PersonError:
        return
    assert person(who) == who == person(f"O={desk},CN={name}") == person(f"cn= {name} , o= {desk} ")
