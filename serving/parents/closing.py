"""How a parent ends: filled, cancelled, or swept at its horizon; denials that hold it back; what it cost."""

from typing import TYPE_CHECKING, Any

from serving.contracts.decisions import Allowed, Decision
from serving.contracts.orders import Request
from serving.contracts.tca import in_bps, lost2, shortfall, sweep_cost
from serving.parents.orders import How, Parent, Phase
from serving.parents.outputs import Bench, Run
from serving.parents.records import Ended, Finishing, Restated
from serving.parents.state import is_too_late

if TYPE_CHECKING:
    from serving.parents.core import Core

MINOR_UNITS = 100


class Closer:
    """Ends the parents of a core."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    def back_off(self, parent: Parent, request: Request | None, decision: Decision) -> None:
        """Hold a parent back after a denial, longer with each in a row."""
        core, run = self._core, self._core.runs.get(parent.number)
        if request is None or isinstance(decision, Allowed) or run is None:
            return
        rules = core.rules
        if is_too_late(request, decision):
            run.not_before_ns = core.now_ns + rules.backoff_ns
            return
        wait_ns = min(rules.backoff_ns << min(max(parent.denials - 1, 0), 20), rules.backoff_max_ns)
        if parent.phase is Phase.FINISHING:
            wait_ns = rules.backoff_ns  # the sweep's room is short
        run.not_before_ns = core.now_ns + wait_ns
        core.alert(
            "denied", f"parent {parent.parent_id}: {decision.control} denied: {decision.message}",
            parent=parent.parent_id, control=decision.control, value=decision.value, limit=decision.limit,
        )  # fmt: skip

    def step(self, parent: Parent, run: Run) -> bool:
        """Move a parent towards its end; whether it is still to be decided on."""
        core = self._core
        if parent.phase is Phase.ENDED:
            return False
        if parent.phase is Phase.WAITING:
            since = parent.start_ns or run.waiting_ns or core.now_ns
            run.waiting_ns = run.waiting_ns or core.now_ns
            if core.now_ns >= since + parent.horizon_ns > parent.horizon_ns:
                self._end(parent, run, "expired", run.waits_for or "its market never opened")
            return False
        if parent.phase is Phase.CANCELLING:
            core.sender.withdraw_all(parent)
            if not parent.open_children:  # what was under way may have filled all of it meanwhile
                self._end(parent, run, "cancelled" if parent.left else "filled", parent.reason if parent.left else "")
            return False
        if parent.left == 0:
            core.sender.withdraw_all(parent)
            if not parent.open_children:
                self._end(parent, run, "filled")
            return False
        rest = parent.resting
        if rest is not None and rest.crossing and rest.is_settled:
            core.sender.withdraw_all(parent)  # it took what there was: no more than that was wanted
        if parent.phase is Phase.WORKING and core.now_ns < parent.end_ns:
            return True
        if parent.phase is Phase.WORKING:
            run.question = run.shadow = None
            run.tried_ns, run.not_before_ns = -1, min(run.not_before_ns, core.now_ns)
            core.record(
                Finishing(utc_ns=core.utc_ns, number=parent.number, market_ns=core.now_ns, filled=parent.filled)
            )
        self._sweep(parent, run)
        return False

    def measure(self, parent: Parent, run: Run) -> None:
        """Follow the window that the parent is judged by: the mid over time, the even schedule at the opposite best."""
        core, market = self._core, run.market
        bench = run.bench
        if bench is None:  # after a restart
            row = market.last
            if row is None:
                return
            bench = run.bench = Bench(core.now_ns, market.row_count - 1, core.now_ns, row.mid2, whole=False)
            bench.slices = max(0, (core.now_ns - parent.began_ns) // parent.plan.interval_ns + 1)
        end_ns = min(core.now_ns, parent.end_ns)
        if market.last is None or bench.place + 1 < market.first:
            bench.whole = False
        for place in range(max(bench.place + 1, market.first), market.row_count):
            row = market.rows[place - market.first]
            if row.ts_ns > end_ns:
                break
            self._until(bench, row.ts_ns)
            bench.mid2, bench.place = row.mid2, place
        self._until(bench, end_ns)
        plan = parent.plan
        while bench.slices < plan.slices and parent.began_ns + bench.slices * plan.interval_ns <= core.now_ns:
            k, lots = bench.slices, parent.lots
            share = lots * (k + 1) // plan.slices - lots * k // plan.slices
            at = market.row_at(parent.began_ns + k * plan.interval_ns)
            price = 0 if at is None else at.best(parent.side)[2]
            if price:
                bench.touch_cost += price * share
                bench.touch_lots += share
            bench.slices += 1

    @staticmethod
    def _until(bench: Bench, ts_ns: int) -> None:
        if ts_ns > bench.at_ns:
            bench.area += bench.mid2 * (ts_ns - bench.at_ns)
            bench.at_ns = ts_ns

    def _sweep(self, parent: Parent, run: Run) -> None:
        """Take what is left, again while there is room; then cancel what is open, and end with what is left stated."""
        core = self._core
        if core.now_ns < parent.end_ns + core.rules.room_ns:
            core.sender.take(parent, run, parent.left)
            return
        core.sender.withdraw_all(parent)
        if not parent.open_children:
            why = run.waits_for or "the market had not enough to take"
            if not run.waits_for and parent.denied is not None and parent.denials:
                why = f"its last order met a denial by {parent.denied.control}: {parent.denied.message}"
            self._end(parent, run, "expired", why)

    def _end(self, parent: Parent, run: Run, how: How, reason: str = "") -> None:
        core = self._core
        core.record(
            Ended(
                utc_ns=core.utc_ns,
                number=parent.number,
                market_ns=core.now_ns,
                how=how,
                reason=reason,
                tca=self._tca(parent, run, how),
            )  # fmt: skip
        )
        if parent.left and how != "cancelled":
            core.alert(
                "left", f"parent {parent.parent_id} ended with {parent.left} of {parent.lots} lots left: {reason}",
                parent=parent.parent_id, left=parent.left,
            )  # fmt: skip

    def restate(self, parent: Parent) -> None:
        """A fill, bust or correction came after the end: state what it cost again, and tell people."""
        core = self._core
        assert parent.how is not None
        tca = self._tca(parent, Run(core.markets[parent.symbol]), parent.how, parent.tca)
        core.record(Restated(utc_ns=core.utc_ns, number=parent.number, market_ns=core.now_ns, tca=tca))
        core.alert(
            "late", f"parent {parent.parent_id} had ended, and the venue says otherwise now: {parent.filled} of "
            f"{parent.lots} lots are filled", parent=parent.parent_id, filled=parent.filled,
        )  # fmt: skip

    def _tca(self, parent: Parent, run: Run, how: How, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """The parent's cost analysis, plain values; costs in bps of the arrival value, above zero a cost.

        `before` is the one that it replaces: the window and the charge for a lot that was left are its own.
        """
        sums, side, plan = parent.sums, parent.side, parent.plan
        instrument = run.market.instrument
        found = shortfall(sums, instrument.tick_size * instrument.lot_size * MINOR_UNITS)
        filled, left = parent.filled, parent.left
        result: dict[str, Any] = {
            "quantity_lots": parent.lots, "filled_lots": filled, "left_lots": left, "how": how,
            "completion": (filled if parent.in_time is None else parent.in_time) / parent.lots,
            "version": plan.version, "sha256": plan.sha256, "fallback": parent.fallback,
            "arrival_ticks": parent.arrival_mid2 / 2 if parent.arrival_mid2 else None,
            "average_ticks": sums.cost / filled if filled else None,
            "is_bps": None, "spread_bps": None, "impact_bps": None, "timing_bps": None, "fees_bps": None,
            "left_bps": None, "left_ticks": None, "passive_share": None, **_window(run.bench, filled),
        }  # fmt: skip
        if before:
            result.update({name: before[name] for name in ("twap_ticks", "twap_touch_ticks", "window_whole")})
        paid = None  # ticks times lots, for those that are left
        if how != "cancelled" and left and parent.arrival_mid2:
            paid = self._charge(parent, run, before)
        charged = 0 if paid is None else left
        if filled + charged > 0 and parent.arrival_mid2:
            share = filled / (filled + charged)
            charge2 = 0 if paid is None else lost2(side, 2 * paid, left, parent.arrival_mid2)
            left_bps = in_bps(charge2, float((filled + charged) * parent.arrival_mid2))
            result["left_bps"] = result["is_bps"] = left_bps
            result["left_ticks"] = None if paid is None else paid / left
            if found is not None:
                for name in ("spread_bps", "impact_bps", "timing_bps", "fees_bps"):
                    result[name] = share * getattr(found, name)
                result["is_bps"] = share * found.is_bps + left_bps
                result["passive_share"] = found.passive_share
        for name in ("twap", "twap_touch"):
            price, average = result[f"{name}_ticks"], result["average_ticks"]
            result[f"vs_{name}_bps"] = 1e4 * side * (average - price) / price if price and average else None
        return result

    @staticmethod
    def _charge(parent: Parent, run: Run, before: dict[str, Any] | None) -> float | None:
        """Ticks times lots for what is left: what the book asks now, or asked when the parent ended; None unknown."""
        if before and before["left_ticks"] is not None:
            return float(before["left_ticks"] * parent.left)
        row = run.market.last or (run.market.rows[-1] if run.market.rows else None)
        return None if row is None else sweep_cost(row.opposite(parent.side), parent.side, parent.left, row.mid2)[0]


def _window(bench: Bench | None, filled: int) -> dict[str, Any]:
    """The window's time-weighted mid, and the average of the even schedule at the opposite best."""
    mid = touch = None
    if bench is not None and filled:
        span = bench.at_ns - bench.from_ns
        mid = (bench.area / (2 * span) if span > 0 else bench.mid2 / 2) or None
        touch = bench.touch_cost / bench.touch_lots if bench.touch_lots else None
    return {"twap_ticks": mid, "twap_touch_ticks": touch, "window_whole": bench is not None and bench.whole}
