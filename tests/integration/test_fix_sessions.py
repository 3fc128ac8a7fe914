"""FIX sessions over loopback: logon, gaps, resend, duplicates, half-open lines, stale orders, callbacks that raise."""

import socket
import time
from datetime import UTC, datetime, timedelta

import pytest
import quickfix
from certificates import Authority
from fix_peers import Notes, Pair, RawEnd, free_port, until

from serving.contracts.orders import Busted, Cancelled, ChildOrder, Filled
from serving.gateway.config import FixConfig
from serving.wire.fix_application import GuardedApplication
from serving.wire.fix_fields import Fields, Tag, build
from serving.wire.fix_listen import _listeners
from serving.wire.fix_numbers import Scale, utc_ns
from serving.wire.fix_orders import encode_cancel, encode_new
from serving.wire.fix_reports import decode_answer
from serving.wire.fix_session import FixAcceptor, FixDownError, FixInitiator, SessionProbe
from serving.wire.fix_settings import FixSettings, FixTls, session_day
from serving.wire.identity import hash_token
from training.market.venue.settings import VenueSettings

SCALE = Scale.of("0.01")


def order(number):
    child = ChildOrder(
        key=f"k{number}", strategy="rule", account="main", algorithm="ppo", trader="ada", sent_ns=1, venue="VENUE",
        symbol="SYN1", side="buy", type="limit", price_ticks=10_001, lots=3, tif="day", reduce_only=False,
    )  # fmt: skip
    return encode_new(number, child, SCALE, time.time_ns())


def cancel(number):
    return encode_cancel(number, number + 1000, str(number), "SYN1", "buy", time.time_ns())


def report(exec_id):
    return build("8", {Tag.EXEC_ID: exec_id, Tag.TEXT: "a report"})


def test_orders_arrive_in_order_and_the_barrier_says_so(tmp_path):
    with Pair(tmp_path) as pair:
        for number in range(1, 201):
            pair.initiator.send(order(number))
        assert pair.initiator.barrier(10)
        assert pair.venue.values("11") == [str(number) for number in range(1, 201)]
        assert not pair.gate.failures and not pair.venue.failures
    assert pair.gate.events == ["on", "out"]


def test_session_that_is_down_takes_no_order_and_delivers_none_later(tmp_path):
    with Pair(tmp_path) as pair:
        pair.initiator.send(order(1))
        assert pair.initiator.barrier(10)
        pair.acceptor.stop()
        pair.acceptor = None
        until(lambda: not pair.initiator.is_up, "logout")
        with pytest.raises(FixDownError, match="the session with VENUE is down"):
            pair.initiator.send(order(2))
        assert not pair.initiator.barrier(0.1)
        pair.start_venue()
        pair.up()
        pair.initiator.send(order(3))
        assert pair.initiator.barrier(10)
        assert pair.venue.values("11") == ["1", "3"]


def test_order_that_quickfix_kept_for_a_dead_session_is_vetoed_when_it_comes_back(tmp_path):
    """What `send` would never do: hand over without looking, as `sendToTarget` allows, in the instant a line dies."""
    with Pair(tmp_path) as pair:
        pair.acceptor.stop()
        pair.acceptor = None
        until(lambda: not pair.initiator.is_up, "logout")
        veto, pair.gate.veto = pair.gate.veto, lambda *_: None  # toApp itself believes that the line is up
        assert quickfix.Session.sendToTarget(order(5), pair.initiator._session)  # QuickFIX says True
        assert quickfix.Session.sendToTarget(cancel(4), pair.initiator._session)
        pair.gate.veto = veto
        pair.start_venue()
        pair.up()
        until(lambda: pair.venue.messages, "the cancel")
        assert pair.initiator.barrier(10)
        assert pair.venue.values("35") == ["F"]  # the cancel comes late, the order never
        assert pair.gate.vetoes == [("5", "an order is never sent a second time", True)]
        pair.initiator.send(order(6))
        assert pair.initiator.barrier(10) and pair.venue.values("11")[-1] == "6"


def test_handler_s_veto_holds_back_and_the_session_goes_on(tmp_path):
    with Pair(tmp_path) as pair:
        pair.gate.forbidden = "killed"
        with pytest.raises(FixDownError, match="held back"):
            pair.initiator.send(order(1))
        pair.gate.forbidden = ""
        pair.initiator.send(order(2))
        assert pair.initiator.barrier(10) and pair.venue.values("11") == ["2"]
        assert pair.gate.vetoes == [("1", "killed", False)]


def test_callback_that_raises_halts_and_lets_cancels_out_only(tmp_path):
    with Pair(tmp_path) as pair:
        pair.gate.raises = True
        pair.acceptor.send("GATE", report("x1"))
        until(lambda: pair.gate.failures, "the failure")
        assert pair.gate.failures == ["fromApp: KeyError: 'planted'"] and not pair.initiator.is_up
        with pytest.raises(FixDownError, match="held back"):
            pair.initiator.send(order(1))
        pair.initiator.send(cancel(7))
        assert pair.initiator.barrier(10)  # QuickFIX itself goes on
        assert pair.venue.values("35") == ["F"]
        pair.acceptor.send("GATE", report("x2"))
        assert pair.initiator.barrier(10) and len(pair.gate.failures) == 1


def test_veto_that_raises_holds_the_order_back(tmp_path):
    with Pair(tmp_path) as pair:
        pair.gate.veto = lambda *_: 1 / 0
        with pytest.raises(FixDownError, match="held back"):
            pair.initiator.send(order(1))
        assert pair.gate.failures == ["toApp: ZeroDivisionError: division by zero"]
        assert pair.initiator.barrier(10) and not pair.venue.messages


def test_reports_missed_while_down_come_after_the_next_logon_once(tmp_path):
    with Pair(tmp_path) as pair:
        pair.acceptor.send("GATE", report("x1"))
        until(lambda: pair.gate.values("17") == ["x1"])
        pair.initiator.stop()
        pair.initiator = None
        until(lambda: not pair.application.is_up("GATE"), "logout")
        assert pair.acceptor.send("GATE", report("x2")) and pair.acceptor.send("GATE", report("x3"))
        pair.start_gate()
        until(lambda: len(pair.gate.messages) == 3, "the reports missed")
        assert pair.gate.values("17") == ["x1", "x2", "x3"]
        assert [fields.is_resent for fields in pair.gate.messages] == [False, True, True]


def test_probe_sees_a_peer_that_no_longer_processes(tmp_path):
    with Pair(tmp_path) as pair:
        states = []
        probe = SessionProbe(pair.initiator, states.append, every_s=0.05, timeout_s=0.4)
        probe.start()
        until(lambda: states == [""])
        pair.venue.hangs = True
        pair.initiator.send(order(1))
        until(lambda: states[-1] == "VENUE did not answer a test request within 0.4 s")
        pair.venue.hangs = False
        until(lambda: states[-1] == "")
        pair.initiator.app.fail("planted")
        until(lambda: states[-1] == "a callback raised: planted")
        probe.stop()


# Days ---------------------------------------------------------------------------------------------------------------


def numbers(pair):
    session = quickfix.Session.lookupSession(pair.initiator._session)
    return session.getExpectedSenderNum(), session.getExpectedTargetNum()


def test_session_of_another_day_begins_at_1_and_nothing_of_it_comes_again(tmp_path):
    with Pair(tmp_path, day_start="00:00:00") as pair:
        pair.initiator.send(order(1))
        assert pair.initiator.barrier(10)
        pair.initiator.stop()
        pair.initiator = None
        until(lambda: not pair.application.is_up("GATE"), "logout")
        assert pair.acceptor.send("GATE", report("x1"))  # nobody is there to hear it
    for path in tmp_path.glob("*/*.session"):
        path.write_text("20200102-10:00:00")  # since when a store counts
    before = sum(path.stat().st_size for path in tmp_path.glob("*/*.body"))
    with Pair(tmp_path, day_start="00:00:00") as pair:
        assert pair.initiator.barrier(10)
        assert numbers(pair)[0] <= 4 and numbers(pair)[1] <= 4  # a logon, a test request, a heartbeat
        pair.initiator.send(order(2))
        pair.acceptor.send("GATE", report("x2"))
        assert pair.initiator.barrier(10)
        assert pair.venue.values("11") == ["2"] and pair.gate.values("17") == ["x2"]
        assert not pair.gate.vetoes and not pair.gate.failures and not pair.venue.failures
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*.body")) < 2 * before


@pytest.mark.slow
def test_session_of_the_same_day_goes_on_where_it_was(tmp_path):
    with Pair(tmp_path, day_start="00:00:00") as pair:
        pair.initiator.send(order(1))
        assert pair.initiator.barrier(10)
        old = numbers(pair)
    with Pair(tmp_path, day_start="00:00:00") as pair:
        assert numbers(pair) > old


@pytest.mark.slow
def test_session_that_is_up_when_its_day_ends_is_up_again_at_once_from_1(tmp_path):
    start = datetime.now(UTC) + timedelta(seconds=4)
    with Pair(tmp_path, day_start=f"{start:%H:%M:%S}") as pair:
        for number in range(1, 6):
            pair.initiator.send(order(number))
        assert pair.initiator.barrier(10)
        until(lambda: not pair.initiator.is_up, "the end of the day")
        pair.up()
        assert numbers(pair) == (2, 2)
        pair.initiator.send(order(6))
        assert pair.initiator.barrier(10)
        assert pair.venue.values("11") == [str(number) for number in range(1, 7)]
    assert pair.gate.events == ["on", "out", "on", "out"]


# A foreign codec at the other end -----------------------------------------------------------------------------------


@pytest.fixture
def venue_of_raw(tmp_path):
    """An initiator of ours that connects to a socket in the test's hands; gives a function that takes the next line."""
    notes = Notes()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gate = FixInitiator(notes, FixSettings("GATE", ("VENUE",), tmp_path, port, heartbeat_s=1))
        notes.app = gate.app
        gate.start()
        ends = []

        def take(reply=True):
            listener.settimeout(20)
            end = RawEnd(listener.accept()[0], "VENUE", "GATE")
            end.logon = end.receive("A")
            if reply:
                end.send("A", [(98, 0), (108, 1)])
            ends.append(end)
            return end

        yield gate, notes, take
        gate.stop()
        for end in ends:
            end.connection.close()


def fill(exec_id, cl_ord_id="1"):
    return [(37, "V1"), (11, cl_ord_id), (17, exec_id), (150, "F"), (39, "1"), (55, "SYN1"), (54, "1")]


def test_foreign_venue_s_gap_is_asked_for_and_filled(venue_of_raw):
    gate, notes, take = venue_of_raw
    end = take()
    end.sequence = 4  # messages 2 and 3 were lost
    end.send("8", fill("x4"))
    asked = end.receive("2")
    assert asked["7"] == "2"
    end.send("8", fill("x2"), sequence=2, dup=True)
    end.send("8", fill("x3"), sequence=3, dup=True)
    end.send("8", fill("x4"), sequence=4, dup=True)
    until(lambda: len(notes.messages) >= 3)
    assert notes.values("17") == ["x2", "x3", "x4"]


def test_duplicate_report_with_an_old_number_is_not_told_twice(venue_of_raw):
    gate, notes, take = venue_of_raw
    end = take()
    end.send("8", fill("x2"))
    end.send("8", fill("x2"), sequence=2, dup=True)
    end.send("8", fill("x3"))
    until(lambda: len(notes.messages) >= 2)
    end.send("1", [(112, "T")])
    assert end.receive("0")["112"] == "T"
    assert notes.values("17") == ["x2", "x3"]


def test_fill_that_comes_after_its_cancel_is_told_after_it(venue_of_raw):
    gate, notes, take = venue_of_raw
    end = take()
    until(lambda: gate.is_up)
    gate.send(order(1))
    gate.send(cancel(1))
    end.receive("F")
    base = [(37, "V1"), (55, "SYN1"), (54, "1"), (38, "3"), (44, "100.01"), (60, "20250106-09:30:00")]
    end.send("8", [*base, (11, "1-1001"), (41, "1"), (17, "x1"), (150, "4"), (39, "4"), (151, "0"), (14, "0")])
    late = [*base, (11, "1"), (17, "x2"), (150, "F"), (39, "4"), (151, "0"), (14, "2"), (31, "100.01"), (32, "2")]
    end.send("8", late)
    end.send("8", late, sequence=end.sequence - 1, dup=True)  # and once more, as a duplicate
    end.send("8", [*base, (11, "1"), (17, "x3"), (19, "x2"), (150, "H"), (39, "4"), (151, "0"), (14, "0")])
    until(lambda: len(notes.messages) >= 3)
    reports = [decode_answer(fields, {"SYN1": SCALE}).report for fields in notes.messages]
    ts_ns = utc_ns("20250106-09:30:00")
    assert reports == [
        Cancelled(order_id=1, ts_ns=ts_ns),
        Filled(order_id=1, ts_ns=ts_ns, exec_id="x2", price_ticks=10_001, lots=2),
        Busted(order_id=1, ts_ns=ts_ns, exec_id="x2"),
    ]


def test_low_number_without_possdup_ends_the_session(venue_of_raw):
    gate, notes, take = venue_of_raw
    end = take()
    end.send("8", fill("x2"))
    end.send("8", fill("x1"), sequence=1)
    assert "too low" in end.receive("5")["58"]
    until(lambda: not gate.is_up)


def test_spoilt_checksum_is_passed_over_and_asked_for_again(venue_of_raw):
    gate, notes, take = venue_of_raw
    end = take()
    until(lambda: gate.is_up)
    end.connection.sendall(b"8=FIX.4.4\x019=5\x0135=8\x0110=000\x01")
    end.sequence += 1
    end.send("8", fill("x3"))
    assert end.receive("2")["7"] == "2" and not notes.failures


def test_half_open_line_is_found_and_made_anew(venue_of_raw):
    gate, notes, take = venue_of_raw
    silent = take()
    until(lambda: gate.is_up)
    assert silent.receive("1")["112"]  # it is asked for a sign of life, and gives none
    assert silent.closed()
    until(lambda: not gate.is_up)
    with pytest.raises(FixDownError):
        gate.send(order(9))
    again = take(reply=False)
    again.sequence = silent.sequence
    again.send("A", [(98, 0), (108, 1)])
    until(lambda: gate.is_up)
    assert notes.events[:3] == ["on", "out", "on"]


def test_working_orders_are_not_repeated_to_a_venue_that_lost_its_memory(venue_of_raw):
    gate, notes, take = venue_of_raw
    end = take()
    until(lambda: gate.is_up)
    for number in (1, 2, 3):
        gate.send(order(number))
    gate.send(cancel(2))
    assert [end.receive("D")["11"] for _ in range(3)] == ["1", "2", "3"]
    end.send("2", [(7, 1), (16, 0)])  # from the beginning, please
    gap = end.receive("4")
    assert gap["123"] == "Y" and gap["43"] == "Y"
    resent = end.receive("F")
    assert resent["43"] == "Y" and resent["41"] == "2"
    until(lambda: len(notes.vetoes) == 3)
    assert [veto[0] for veto in notes.vetoes] == ["1", "2", "3"] and all(veto[2] for veto in notes.vetoes)
    end.send("1", [(112, "T")])
    assert end.receive("0")["112"] == "T"


def test_foreign_client_trades_with_our_acceptor(tmp_path):
    notes, port = Notes(), free_port()
    acceptor = FixAcceptor(GuardedApplication(notes), FixSettings("VENUE", ("GATE",), tmp_path, port))
    acceptor.start()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        end = RawEnd(connection, "GATE", "VENUE")
        end.send("A", [(98, 0), (108, 5)])
        assert end.receive("A")["49"] == "VENUE"
        end.send("D", [(11, "1"), (55, "SYN1"), (54, 1), (38, 1), (40, 1)])
        end.send("D", [(11, "3"), (55, "SYN1"), (54, 1), (38, 1), (40, 1)], sequence=5)
        assert end.receive("2")["7"] == "3"
        end.send("4", [(123, "Y"), (36, 6)], sequence=3, dup=True)
        end.sequence = 6
        end.send("1", [(112, "T")])
        assert end.receive("0")["112"] == "T"
        acceptor.send("GATE", report("x1"))
        assert end.receive("8")["17"] == "x1"
        end.send("5")
        end.receive("5")
    acceptor.stop()
    assert [fields.text(Tag.CL_ORD_ID) for fields in notes.messages if isinstance(fields, Fields)] == ["1"]


@pytest.mark.parametrize("given", ["0123456789abcdef" * 2, "f" * 32, ""], ids=["right", "wrong", "none"])
def test_logon_wants_its_token_where_tokens_are_asked_for(tmp_path, given):
    tokens, notes, port = {"GATE": hash_token("0123456789abcdef" * 2)}, Notes(), free_port()
    acceptor = FixAcceptor(
        GuardedApplication(notes, tokens=tokens), FixSettings("VENUE", ("GATE",), tmp_path / "v", port)
    )
    acceptor.start()
    gate = FixInitiator(Notes(), FixSettings("GATE", ("VENUE",), tmp_path / "g", port, heartbeat_s=1), given)
    gate.start()
    if given.startswith("0"):
        until(lambda: gate.is_up, "logon")
        assert gate.barrier(10)
    else:
        time.sleep(2)
        assert not gate.is_up and not notes.events
    gate.stop()
    acceptor.stop()
    assert not notes.failures


class Echo(quickfix.Application):
    """Any application of QuickFIX: sends orders back, as the one of its acceptance suite does."""

    def onCreate(self, session):
        pass

    def onLogon(self, session):
        pass

    def onLogout(self, session):
        pass

    def toAdmin(self, message, session):
        pass

    def fromAdmin(self, message, session):
        pass

    def toApp(self, message, session):
        pass

    def fromApp(self, message, session):
        back = quickfix.Message()
        back.getHeader().setField(35, "D")
        back.setField(11, message.getField(11))
        quickfix.Session.sendToTarget(back, session)


def test_acceptor_takes_any_application_and_any_of_quickfix_s_settings(tmp_path):
    port = free_port()
    chosen = FixSettings("ISLD", ("TW",), tmp_path, port, more=(("ResetOnDisconnect", "Y"),))
    acceptor = FixAcceptor(Echo(), chosen)
    acceptor.start()
    for _ in range(2):  # each time from the first number on
        with socket.create_connection(("127.0.0.1", port)) as connection:
            end = RawEnd(connection, "TW", "ISLD")
            end.send("A", [(98, 0), (108, 5)])
            assert end.receive("A")["34"] == "1"
            end.send("D", [(11, "id"), (55, "LNUX"), (54, 3), (38, 200), (40, 1), (60, "20250106-00:00:00")])
            assert end.receive("D")["11"] == "id"
            end.send("5")
            end.receive("5")
    acceptor.stop()


def test_acceptor_without_tls_is_reached_from_this_machine_alone(tmp_path):
    """QuickFIX binds every address: the kernel keeps other machines away, the session whoever uses another address."""
    port = free_port()
    acceptor = FixAcceptor(GuardedApplication(Notes()), FixSettings("VENUE", ("GATE",), tmp_path, port))
    acceptor.start()
    listeners = _listeners(port)
    assert listeners
    for listener in listeners:
        with listener:
            assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"
    with socket.socket() as connection:
        connection.bind(("127.0.0.2", 0))
        connection.connect(("127.0.0.1", port))
        end = RawEnd(connection, "GATE", "VENUE")
        end.send("A", [(98, 0), (108, 5)])
        assert end.closed()
    acceptor.stop()


def test_acceptor_speaks_another_version_where_it_is_asked_to(tmp_path):
    port = free_port()
    chosen = FixSettings("ISLD", ("TW42",), tmp_path, port, begin_string="FIX.4.2")
    acceptor = FixAcceptor(Echo(), chosen)
    acceptor.start()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        end = RawEnd(connection, "TW42", "ISLD", "FIX.4.2")
        end.send("A", [(98, 0), (108, 5)])
        assert end.receive("A")["8"] == "FIX.4.2"
    acceptor.stop()


def test_stranger_is_not_let_in(tmp_path):
    notes, port = Notes(), free_port()
    acceptor = FixAcceptor(GuardedApplication(notes), FixSettings("VENUE", ("GATE",), tmp_path, port))
    acceptor.start()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        end = RawEnd(connection, "MALLORY", "VENUE")
        end.send("A", [(98, 0), (108, 5)])
        assert end.closed()
    acceptor.stop()
    assert not notes.events


def test_tls_session_wants_a_certificate_of_the_authority(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    notes, port = Notes(), free_port()
    subjects = (("GATE", "commonName=honest gate,organizationName=desk"),)
    venue_tls = FixTls(*authority.issue("venue"), authority.certificate, subjects)
    acceptor = FixAcceptor(
        GuardedApplication(notes), FixSettings("VENUE", ("GATE",), tmp_path / "v", port, heartbeat_s=1, tls=venue_tls)
    )
    acceptor.start()
    forged = FixTls(*stranger.issue("gate"), authority.certificate)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        plain = RawEnd(connection, "GATE", "VENUE")
        plain.send("A", [(98, 0), (108, 5)])
        assert plain.closed()
    wrong = FixInitiator(Notes(), FixSettings("GATE", ("VENUE",), tmp_path / "w", port, heartbeat_s=1, tls=forged))
    wrong.start()
    time.sleep(1.5)
    assert not wrong.is_up
    wrong.stop()
    honest = FixTls(*authority.issue("honest gate"), authority.certificate)
    right = FixInitiator(Notes(), FixSettings("GATE", ("VENUE",), tmp_path / "g", port, heartbeat_s=1, tls=honest))
    right.start()
    until(lambda: right.is_up, "logon over TLS")
    assert right.barrier(10)
    right.send(order(1))
    assert right.barrier(10) and notes.values("11") == ["1"]
    right.stop()
    acceptor.stop()


def test_tls_initiator_does_not_log_on_to_a_venue_of_another_authority(tmp_path):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    notes, port = Notes(), free_port()
    tls = FixTls(*stranger.issue("venue"), authority.certificate, (("GATE", "commonName=gate,organizationName=desk"),))
    acceptor = FixAcceptor(
        GuardedApplication(notes), FixSettings("VENUE", ("GATE",), tmp_path / "v", port, heartbeat_s=1, tls=tls)
    )
    acceptor.start()
    own = FixTls(*authority.issue("gate"), authority.certificate)
    gate = FixInitiator(Notes(), FixSettings("GATE", ("VENUE",), tmp_path / "g", port, heartbeat_s=1, tls=own))
    gate.start()
    time.sleep(2.5)
    assert not gate.is_up and not notes.events
    gate.stop()
    acceptor.stop()


def test_settings_that_cannot_be_are_refused(tmp_path):
    for wrong, error in (
        ({"host": "0.0.0.0"}, "not a loopback"),
        ({"port": 0}, "port 0"),
        ({"heartbeat_s": 0}, "heartbeat_s 0"),
        ({"day_start": "24:00:00"}, "day_start '24:00:00'"),
        ({"day_start": "7"}, "day_start '7'"),
        ({"peers": ()}, "must be different"),
        ({"peers": ("GATE",)}, "must be different"),
    ):
        with pytest.raises(ValueError, match=error):
            FixSettings(**{"comp_id": "GATE", "peers": ("VENUE",), "store": tmp_path, "port": 5000} | wrong)
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        acceptor = FixAcceptor(GuardedApplication(Notes()), FixSettings("VENUE", ("GATE",), tmp_path, taken))
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}"):
            acceptor.start()


def test_time_at_which_days_begin_is_checked_in_every_process_s_settings(tmp_path):
    with pytest.raises(ValueError, match="day_start '25:00:00' is no time of day"):
        FixConfig(day_start="25:00:00")
    with pytest.raises(ValueError, match="day_start 'noon' is no time of day"):
        VenueSettings(folder=tmp_path, day_start="noon")
    assert session_day("21:30:00") == {"StartTime": "21:30:00", "EndTime": "21:29:59"}
    assert session_day("00:00:00")["EndTime"] == "23:59:59"
