"""venues.yaml and a file of one's own: what is switched, in which order, and how a mistake is named."""

from pathlib import Path

import pytest

from feature_repo.errors import InputError
from feature_repo.pipeline.rules import RULES, CleanLimits
from feature_repo.pipeline.venue_rules import DEFAULT_FILE, default_rules, load_rules
from feature_repo.ticks.instruments import Instrument, SessionWindow


@pytest.fixture
def own(tmp_path):
    """Writes a file of rules and loads it."""

    def run(text, **more):
        path = tmp_path / "rules.yaml"
        path.write_text(text)
        return load_rules(path, **more)

    return run


def test_platform_rules_when_a_venue_is_not_named_then_it_uses_all_but_stale_repeat():
    assert default_rules().of("NOWHERE").on == set(RULES) - {"stale_repeat"}


@pytest.mark.parametrize(
    "venue", ["US", "SHFE", "OANDA", "FXCM", "NASDAQ", "BINANCE", "BINANCE-USDM", "BITSTAMP", "GLBX"]
)
def test_platform_rules_when_a_reader_gives_a_venue_then_it_stands_there_with_a_reason(venue):
    assert venue in default_rules().venues
    section = DEFAULT_FILE.read_text().split(f"\n  {venue}:\n")[1]
    assert section.lstrip().startswith("#")


def test_own_rules_when_laid_over_then_they_change_only_what_they_name(own):
    book = own("default: {off: [off_tick]}\nvenues: {SHFE: {on: [stale_repeat], limits: {crossed_grace_ns: 5}}}\n")
    shfe = book.of("SHFE")
    assert "off_tick" not in shfe.on and "stale_repeat" in shfe.on and shfe.limits.crossed_grace_ns == 5
    assert shfe.auctions == default_rules().of("SHFE").auctions  # the platform's, since the own file is silent
    assert shfe.limits.locked_grace_ns == CleanLimits().locked_grace_ns
    assert "off_tick" not in book.of("US").on and "stale_repeat" not in book.of("US").on
    assert "off_tick" not in book.of("NOWHERE").on


def test_own_rules_when_a_venue_turns_on_what_its_default_turned_off_then_it_is_on(own):
    book = own("default: {off: [off_tick]}\nvenues: {US: {on: [off_tick]}}\n")
    assert "off_tick" in book.of("US").on and "off_tick" not in book.of("SHFE").on


def test_limits_when_given_in_code_then_files_are_laid_over_them(own):
    book = own("default: {limits: {outlier_sds: 4}}\n", limits=CleanLimits(backward_tolerance_ns=7))
    assert book.of("X").limits.backward_tolerance_ns == 7 and book.of("X").limits.outlier_sds == 4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "wanted a mapping of default, venues"),
        ("defaults: {}", "'defaults' is unknown; there are: default, venues"),
        ("default: {of: [off_tick]}", "default: 'of' is unknown; there are: on, off, limits, auctions"),
        ("venues: {US: {off: [off_tik]}}", r"venues: US: off: rule 'off_tik' is unknown; there are: exact_duplicate"),
        ("default: {off: off_tick}", "off: holds 'off_tick', wanted a list"),
        ("default: {on: [orphan], off: [orphan]}", "rule orphan is both on and off"),
        ("default: {limits: {grace: 1}}", "limits: 'grace' is unknown; there are: backward_tolerance_ns"),
        ("default: {limits: {crossed_grace_ns: soon}}", "crossed_grace_ns is 'soon', wanted a whole number"),
        ("default: {limits: {crossed_grace_ns: 1.5}}", "crossed_grace_ns is 1.5, wanted a whole number"),
        ("default: {limits: {outlier_sds: -1}}", "outlier_sds is -1, wanted a number from 0 on"),
        ("default: {limits: {outlier_sds: .nan}}", "outlier_sds is nan, wanted a number"),
        ("default: {limits: {size_multiple: 0}}", "size_multiple is 0, which is below 1"),
        ("default: {limits: {outlier_min_neighbours: 2}}", "outlier_min_neighbours is 2, which is below 3"),
        ("default: {limits: {off_tick_trades: 1}}", "off_tick_trades is 1, wanted true or false"),
        ("default: {limits: {trade_conditions: [EARLY]}}", "wanted a list of LATE, CANCELLED, DERIVED, ODD_LOT"),
        ("default: {limits: {trade_conditions: [{}]}}", "wanted a list of LATE"),
        ("default: {auctions: [{open: '09:00'}]}", "is no window"),
        ("default: {auctions: [{open: 9:00:00, close: 9:05:00}]}", "times are in quotes"),
        ("default: {auctions: [{open: '09:00', close: '09:05', days_before: 9}]}", "days_before 9"),
        ("default: {off: [{}]}", "rule {} is unknown"),
        ("venues: {1: {}}", "1 is no text"),
        ("venues: [US]", "wanted a mapping of venues"),
        ("default: [", "not a readable YAML file"),
        ("\x00", "not a readable YAML file"),
    ],
)
def test_own_rules_when_something_is_wrong_then_the_file_and_the_name_are_told(own, text, message):
    with pytest.raises(InputError, match=r"rules\.yaml.*" + message.replace("[", r"\[").replace("{}", r"\{\}")):
        own(text)


def test_own_rules_when_the_file_is_absent_then_it_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: not a readable YAML file"):
        load_rules(tmp_path / "none.yaml")


def test_auctions_when_in_the_evening_then_they_belong_to_the_next_trading_day():
    windows = (SessionWindow("21:00:00", "23:00:00", days_before=1), SessionWindow("09:00:00", "15:00:00"))
    rebar = Instrument("SHFE", "rb2510", 1.0, 10.0, "CNY", "Asia/Shanghai", windows, 5, True, 0)
    auctions = default_rules().of("SHFE").auctions_ns(rebar, "2025-06-09")  # a Monday
    sessions = rebar.session_ns("2025-06-09")
    assert [close for _, close in auctions] == [opens for opens, _ in sessions]


def test_describe_when_rules_are_equal_then_so_is_the_text(own):
    one, two = own("default: {off: [orphan, off_tick]}"), own("default: {off: [off_tick, orphan]}")
    assert one.of("US").describe() == two.of("US").describe() != default_rules().of("US").describe()


def test_default_file_when_installed_then_it_lies_beside_the_code():
    assert Path(DEFAULT_FILE).is_file()
