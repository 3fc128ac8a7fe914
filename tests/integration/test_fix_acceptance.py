"""The runner of QuickFIX's acceptance suite, on definitions of our own: what holds passes, what does not is told."""

import socket

import pytest
import quickfix
from fix_acceptance import DICTIONARIES, PATTERNS, SETTINGS, Echo, completed, quickfix_settings, run_all, timed
from fix_peers import free_port

from serving.wire.fix_session import FixAcceptor

VERSIONS = ("FIX.4.0", "FIX.4.1", "FIX.4.2", "FIX.4.3", "FIX.4.4")
ORDER = "11=id|21=3|38=100|40=1|54=1|55=INTC|60=<TIME>|"


def talk(version, *lines, comp_id="TW", logon="98=0|108=30|"):
    """A definition: logon, the lines, logout. `>35=D|34=2|..` is sent, `<35=D|34=2|..` expected."""
    text, stamp = ["# a comment", "", "iCONNECT"], "00000000-00:00:00"
    if version not in ("FIX.4.0", "FIX.4.1"):
        stamp += ".000"
    for line in (f">35=A|34=1|{logon}", f"<35=A|34=1|{logon}", *lines):
        if line[0] not in "<>":
            text.append(line)
            continue
        kind, number, rest = line[1:].split("|", 2)
        is_sent = line[0] == ">"
        sender, target, at = (comp_id, "ISLD", "<TIME>") if is_sent else ("ISLD", comp_id, stamp)
        text.append(f"{'I' if is_sent else 'E'}8={version}|{kind}|{number}|49={sender}|52={at}|56={target}|{rest}")
    return "\n".join(text).replace("|", "\x01")


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("at"), free_port()
    text = SETTINGS.format(port=port, store=folder, dictionaries=DICTIONARIES)
    acceptor = FixAcceptor(Echo(), quickfix_settings(text))
    acceptor.start()
    yield port
    acceptor.stop()


def results(port, tmp_path, *definitions):
    files = [tmp_path / f"{number}.def" for number in range(len(definitions))]
    for path, definition in zip(files, definitions, strict=True):
        path.write_bytes(definition.encode("latin-1"))
    return [reason for _, reason in run_all(files, port, PATTERNS)]


def test_definitions_that_hold_pass_in_every_version(port, tmp_path):
    def lines(order):
        echoed = (f">35=D|34=3|{order}", f"<35=D|34=3|{order}")
        over = (">35=5|34=4|", "<35=5|34=4|", "eDISCONNECT")
        return (">35=1|34=2|112=hello|", "<35=0|34=2|112=hello|", *echoed, *over)

    old = ORDER.replace("60=<TIME>|", "")  # FIX 4.0 and 4.1 have no TransactTime there
    definitions = [talk(version, *lines(old if version < "FIX.4.2" else ORDER)) for version in VERSIONS]
    definitions.append(talk("FIXT.1.1", *lines(ORDER), logon="98=0|108=30|1137=7|"))
    assert results(port, tmp_path, *definitions) == [""] * 6


def test_dictionary_is_used_and_a_repeated_order_is_passed_over(port, tmp_path):
    refused = f">35=D|34=2|{ORDER}".replace("54=1", "54=Z")
    rejected = "<35=3|34=2|45=2|58=Value is incorrect (out of range) for this tag|371=54|372=D|373=5|"
    again = (f">35=D|34=3|{ORDER}", f"<35=D|34=3|{ORDER}", f">35=D|34=4|97=Y|{ORDER}")
    end = (">35=5|34=5|", "<35=5|34=4|", "eDISCONNECT")
    assert results(port, tmp_path, talk("FIX.4.4", refused, rejected, *again, *end)) == [""]


def test_definition_that_does_not_hold_says_where_and_why(port, tmp_path):
    wrong = (
        talk("FIX.4.4", ">35=1|34=2|112=hello|", "<35=0|34=2|112=world|"),
        talk("FIX.4.4", ">35=1|34=2|112=hello|", "<35=0|34=2|"),
        talk("FIX.4.4", ">35=5|34=2|", "eDISCONNECT"),
        talk("FIX.4.4", "eCONNECT"),
        talk("FIX.4.4", "<35=0|34=2|", comp_id="STRANGER"),
    )
    reasons = results(port, tmp_path, *wrong)
    for reason, told in zip(
        reasons,
        (
            "line 7, E8=FIX.4.4|35=0",
            "field 9 should be '49'",
            "disconnection expected",
            "line 6, eCONNECT",
            "disconnected",
        ),
        strict=True,
    ):
        assert told in reason
    assert "field 112 should be 'world'" in reasons[0]


def test_length_checksum_and_time_are_filled_in_where_they_are_missing():
    assert completed("8=FIX.4.4\x0135=0\x0134=2\x01") == "8=FIX.4.4\x019=10\x0135=0\x0134=2\x0110=166\x01"
    for given in ("8=FIX.4.4\x019=7\x0135=0\x0110=001\x01", "CONNECT"):
        assert completed(given) == given
    now, later = (int(timed(text)[-2:]) for text in ("<TIME>", "<TIME+30>"))
    assert (later - now) % 60 in (30, 31)


def test_quickfix_s_own_settings_are_kept_to_this_machine(tmp_path):
    port = free_port()
    text = SETTINGS.format(port=port, store=tmp_path, dictionaries=DICTIONARIES).replace("=TW", "=OTHER")
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="cannot listen on the ports of Quick"):
        FixAcceptor(Echo(), quickfix_settings(text)).start()
    with pytest.raises(quickfix.ConfigError):
        FixAcceptor(Echo(), quickfix_settings(text.replace(f"FileStorePath={tmp_path}\n", ""))).start()
