"""The limits: a strict document by scope, which of two is tighter, and the canonical form that people approve.

```yaml
version: 1
venues: [SIM]
accounts: {A1: [S1, S2]}            # which strategies may trade for which account
limits:
  all: {max_order_lots: 1000, ...}  # every limit must stand here
  venue: {SIM: {...}}               # and any of them again, for a narrower scope
  account: {A1: {...}}
  strategy: {S1: {...}}
  symbol: {AIG: {max_order_lots: 100}}
```

The tightest applies: an order meets the limits of every scope that it belongs to, so that no narrow entry can loosen a
wide one. A limit on what an order is (size, price, age) is the tightest of its scopes; a limit on what adds up
(positions, open orders, notional, losses, messages) is measured in each scope that sets it, over that scope's own sum.
Positions, worst-case values, credit and profit belong to accounts, strategies and symbols, not to a venue, so a venue
may not limit them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from serving.contracts.orders import INT64_MAX, TEXT_MAX

SCOPES = ("all", "venue", "account", "strategy", "symbol")
_ANYWHERE = SCOPES
_HELD = ("all", "account", "strategy", "symbol")
_WHO = ("all", "venue", "account", "strategy")


class LimitsError(ValueError):
    """A document of limits that is not one; the message names the entry, its value and what is wanted."""


class Kind(NamedTuple):
    """One limit: where it may stand, whether a posture scales it, what it says."""

    scopes: tuple[str, ...]
    scaled: bool
    larger_is_tighter: bool
    means: str


def _kind(means: str, scopes: tuple[str, ...] = _ANYWHERE, scaled: bool = False, larger: bool = False) -> Kind:
    return Kind(scopes, scaled, larger, means)


KINDS: dict[str, Kind] = {
    "max_order_lots": _kind("lots of one order", scaled=True),
    "max_order_adv_bps": _kind("lots of one order against the average daily volume, bps", scaled=True),
    "max_order_value": _kind("minor units of one order, at its price or the reference, whichever is more", scaled=True),
    "collar_bps": _kind(
        "limit price beyond the reference: above the ask for a buy, below the bid for a sell, or far behind"
    ),
    "drift_collar_bps": _kind("limit price away from the reference of one to two collar windows ago"),
    "max_reference_age_ns": _kind("age of the reference price since it arrived"),
    "max_feed_lag_ns": _kind("from the feed's sending until its arrival, the clock's measured offset added"),
    "max_request_age_ns": _kind("from the request's sent_ns until it is decided, either way"),
    "max_send_age_ns": _kind("from the decision until the order leaves (last-line veto)"),
    "max_heartbeat_age_ns": _kind("since the strategy's last heartbeat; no new order beyond it"),
    "dead_man_ns": _kind("since the strategy's last heartbeat; its orders are cancelled beyond it"),
    "max_clock_offset_ns": _kind("measured offset of the clock from UTC, and any jump back"),
    "max_clock_age_ns": _kind("age of that measurement"),
    "duplicate_window_ns": _kind("an order equal to one sent within it is a duplicate", larger=True),
    "max_unacknowledged_ns": _kind("age of the oldest order that a venue has not answered"),
    "max_participation_bps": _kind("own lots today, open ones included, against the market's volume, bps", scaled=True),
    "participation_floor_lots": _kind("own lots today that need no market volume behind them", scaled=True),
    "max_venue_rejects": _kind("rejects in a row, by a venue or of a strategy, until a person resets them"),
    "max_repeated_orders": _kind("new orders of a strategy since a person last enabled it"),
    "max_cancels_per_fill": _kind("cancels and replaces for each filled order"),
    "free_cancels": _kind("cancels and replaces a day that need no fill behind them"),
    "max_messages_per_second": _kind("new orders and replaces in any second", _WHO, scaled=True),
    "max_cancels_per_second": _kind("cancels in any second: capacity of their own", _WHO),
    "max_open_orders": _kind("orders in flight and working", scaled=True),
    "max_day_value": _kind("minor units filled today and open", scaled=True),
    "max_day_lots": _kind("lots filled today and open", scaled=True),
    "max_position_lots": _kind("worst-case position in one symbol, either way", _HELD, scaled=True),
    "max_gross_value": _kind("sum of every leg's worst-case value, no netting", _HELD, scaled=True),
    "max_net_value": _kind("worst-case net value, either way", _HELD, scaled=True),
    "max_credit": _kind("worst-case gross value and today's loss", ("all", "account"), scaled=True),
    "max_realised_loss": _kind("today's realised loss", _HELD, scaled=True),
    "max_loss": _kind("today's loss, realised and marked", _HELD, scaled=True),
    "max_drawdown": _kind("today's profit below its best", _HELD, scaled=True),
}
LATER = frozenset({"max_feed_lag_ns"})
"""Limits that documents in older journals lack. Until limits that name them hold, what they limit is denied."""
LISTS = ("restricted_symbols", "allowed_symbols")
"""May stand in a venue, an account or a strategy: symbols that it may not trade, or the only ones that it may."""

MAX_A_SECOND = 100_000


@dataclass(frozen=True)
class Limits:
    """A sound document. `numbers[scope, name][limit]`, `lists[scope, name][list]`."""

    venues: frozenset[str]
    accounts: Mapping[str, frozenset[str]]
    numbers: Mapping[tuple[str, str], Mapping[str, int]]
    lists: Mapping[tuple[str, str], Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @classmethod
    def load(cls, text: str) -> "Limits":
        """Read YAML. Raises LimitsError naming the entry that is unknown, repeated, missing or no integer."""
        return cls.parse(load_yaml(text))

    @classmethod
    def recall(cls, text: str) -> "Limits":
        """Read what a journal holds, which may lack what came later (`LATER`). Raises LimitsError as `load` does."""
        return cls.parse(msgspec.json.decode(text), lacking=LATER)

    @classmethod
    def parse(cls, document: Any, lacking: frozenset[str] = frozenset()) -> "Limits":
        """Read the plain value; `all` may lack the limits `lacking`. Raises LimitsError as `load` does."""
        _keys("document", document, ("version", "venues", "accounts", "limits"), required=True)
        if document["version"] != 1 or type(document["version"]) is not int:
            raise LimitsError(f"version {document['version']!r}, this gateway reads 1")
        accounts = document["accounts"]
        if not isinstance(accounts, dict):
            raise LimitsError(f"accounts {accounts!r} is not a map of account to strategies")
        scopes = document["limits"]
        _keys("limits", scopes, SCOPES)
        if "all" not in scopes:
            raise LimitsError("limits.all is missing: every limit must stand there")
        numbers: dict[tuple[str, str], dict[str, int]] = {}
        lists: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
        for scope in SCOPES:
            entries = {"": scopes["all"]} if scope == "all" else scopes.get(scope, {})
            if not isinstance(entries, dict):
                raise LimitsError(f"limits.{scope} {entries!r} is not a map of name to limits")
            for name, entry in entries.items():
                where = f"limits.{scope}" + (f".{_name(scope, name)}" if scope != "all" else "")
                numbers[scope, name], lists[scope, name] = _entry(where, scope, entry)
        missing = [limit for limit in KINDS if limit not in numbers["all", ""] and limit not in lacking]
        if missing:
            raise LimitsError(f"limits.all lacks {', '.join(missing)}: every limit must stand there")
        return cls(
            _names("venues", document["venues"]),
            {_name("accounts", name): _names(f"accounts.{name}", names) for name, names in accounts.items()},
            numbers,
            {key: value for key, value in lists.items() if value},
        )

    def document(self) -> dict[str, Any]:
        """The plain value that `parse` reads, sorted."""
        scopes: dict[str, Any] = {}
        for (scope, name), entry in sorted(self.numbers.items()):
            plain = {
                **dict(sorted(entry.items())),
                **{k: sorted(v) for k, v in self.lists.get((scope, name), {}).items()},
            }
            if scope == "all":
                scopes["all"] = plain
            else:
                scopes.setdefault(scope, {})[name] = plain
        return {
            "version": 1,
            "venues": sorted(self.venues),
            "accounts": {name: sorted(names) for name, names in sorted(self.accounts.items())},
            "limits": scopes,
        }

    def canonical(self) -> str:
        """The one text of these limits, whatever the order and layout that they were written in."""
        return msgspec.json.encode(self.document(), order="sorted").decode()

    def looser_than(self, other: "Limits") -> list[str]:
        """Every way in which these limits let more through than `other`; empty where they are equal or tighter."""
        found = [f"venue {venue} is new" for venue in sorted(self.venues - other.venues)]
        for account, strategies in sorted(self.accounts.items()):
            for strategy in sorted(strategies - other.accounts.get(account, frozenset())):
                found.append(f"strategy {strategy} may trade for account {account}")
        for key, theirs in sorted(other.numbers.items()):
            ours = self.numbers.get(key, {})
            for limit, old in sorted(theirs.items()):
                new = ours.get(limit)
                if new is None or (new < old if KINDS[limit].larger_is_tighter else new > old):
                    found.append(f"{_where(key)}{limit} {old} becomes {'unlimited' if new is None else new}")
        for key, old_lists in sorted(other.lists.items()):
            new_lists = self.lists.get(key, {})
            lifted = old_lists.get("restricted_symbols", frozenset()) - new_lists.get("restricted_symbols", frozenset())
            found += [f"{_where(key)}{symbol} is no longer restricted" for symbol in sorted(lifted)]
            if "allowed_symbols" in old_lists:
                if "allowed_symbols" not in new_lists:
                    found.append(f"{_where(key)}allows every symbol")
                else:
                    added = new_lists["allowed_symbols"] - old_lists["allowed_symbols"]
                    found += [f"{_where(key)}{symbol} is allowed" for symbol in sorted(added)]
        return found

    def tightest(self, other: "Limits") -> "Limits":
        """What both let through: the tighter of each entry."""
        numbers = {}
        for key in {*self.numbers, *other.numbers}:
            mine, theirs = self.numbers.get(key, {}), other.numbers.get(key, {})
            numbers[key] = {limit: tighter(limit, mine.get(limit), theirs.get(limit)) for limit in {*mine, *theirs}}
        lists: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
        for key in {*self.lists, *other.lists}:
            a, b = self.lists.get(key, {}), other.lists.get(key, {})
            entry: dict[str, frozenset[str]] = {}
            if "restricted_symbols" in a or "restricted_symbols" in b:
                entry["restricted_symbols"] = a.get("restricted_symbols", frozenset()) | b.get(
                    "restricted_symbols", frozenset()
                )
            if "allowed_symbols" in a and "allowed_symbols" in b:
                entry["allowed_symbols"] = a["allowed_symbols"] & b["allowed_symbols"]
            elif "allowed_symbols" in a or "allowed_symbols" in b:
                entry["allowed_symbols"] = a.get("allowed_symbols", b.get("allowed_symbols", frozenset()))
            lists[key] = entry
        accounts = {
            name: self.accounts[name] & other.accounts[name] for name in self.accounts.keys() & other.accounts.keys()
        }
        return Limits(self.venues & other.venues, accounts, numbers, lists)


def change_hash(old: Limits | None, new: Limits) -> str:
    """sha256 (hex) that names one exact change: these limits in place of those."""
    before = old.canonical() if old else ""
    return hashlib.sha256(f"{before}\n{new.canonical()}".encode()).hexdigest()


def tighter(limit: str, one: int | None, other: int | None) -> int:
    """The tighter of two values of a limit, one of which may be absent."""
    if one is None or other is None:
        value = other if one is None else one
        assert value is not None
        return value
    return max(one, other) if KINDS[limit].larger_is_tighter else min(one, other)


def _where(key: tuple[str, str]) -> str:
    return "".join(f"{part}." for part in key if part)


def _keys(where: str, value: Any, allowed: tuple[str, ...], required: bool = False) -> None:
    if not isinstance(value, dict):
        raise LimitsError(f"{where} {value!r} is not a map")
    unknown = [key for key in value if key not in allowed]
    if unknown:
        raise LimitsError(f"{where}.{unknown[0]} is unknown; known: {', '.join(allowed)}")
    lacking = [key for key in allowed if key not in value] if required else []
    if lacking:
        raise LimitsError(f"{where}.{lacking[0]} is missing")


def _name(where: str, name: Any) -> str:
    if type(name) is not str or not 0 < len(name) <= TEXT_MAX or not name.isascii() or not name.isprintable():
        raise LimitsError(f"{where}: name {name!r} is not printable ASCII of 1 to {TEXT_MAX} characters (quote it?)")
    return name


def _names(where: str, names: Any) -> frozenset[str]:
    if not isinstance(names, list) or len(set(map(str, names))) != len(names):
        raise LimitsError(f"{where} {names!r} is not a list of distinct names")
    return frozenset(_name(where, name) for name in names)


def _entry(where: str, scope: str, entry: Any) -> tuple[dict[str, int], dict[str, frozenset[str]]]:
    lists = LISTS if scope in ("venue", "account", "strategy") else ()
    known = (*(limit for limit, kind in KINDS.items() if scope in kind.scopes), *lists)
    _keys(where, entry, known)
    numbers = {}
    for limit in (key for key in entry if key in KINDS):
        value = entry[limit]
        if type(value) is not int or not 0 <= value <= INT64_MAX:
            raise LimitsError(f"{where}.{limit} {value!r} is not an integer from 0 to {INT64_MAX}")
        if limit.endswith("_per_second") and value > MAX_A_SECOND:
            raise LimitsError(f"{where}.{limit} {value} exceeds {MAX_A_SECOND}: a window remembers each message")
        numbers[limit] = value
    return numbers, {key: _names(f"{where}.{key}", entry[key]) for key in lists if key in entry}


def load_yaml(text: str) -> Any:
    """The plain value of strict YAML: no key twice or other than text, no aliases. Raises LimitsError."""
    import yaml  # only where a file is read: the gateway's memory never needs it

    class Strict(yaml.SafeLoader):
        """Refuses a key that stands twice, of which YAML takes the last, and aliases, which grow without end."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
                raise LimitsError("an alias (*name) stands in the document: write the value out")
            node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[misc]
            return node

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                raise LimitsError(f"key {key!r} at line {key_node.start_mark.line + 1} is not text: quote it")
            if key in found:
                raise LimitsError(f"{key} stands twice, again at line {key_node.start_mark.line + 1}")
            found[key] = loader.construct_object(value_node, deep=True)  # type: ignore[no-untyped-call]
        return found

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Strict)
    except LimitsError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date or a number that is none, too deep
        raise LimitsError(f"not YAML: {error}") from error
