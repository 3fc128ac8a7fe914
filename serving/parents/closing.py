"""How a parent ends: filled, cancelled, or swept at its horizon; denials that hold it back; what it cost."""

from typing import TYPE_CHECKING, Any

from serving.contracts.decisions import Allowed, Decision
from serving.contracts.orders import Request
from serving.contracts.tca import in_bps, lost2, shortfall, sweep_cost
from serving.parents.orders import How, Parent, Phase
from serving.parents.outputs import Bench, ParentRequest, Refusal, Run
from serving.parents.records import Ended, Finishing
from serving.parents.state import is_too_late

if TYPE_CHECKING:
    from serving.parents.core import Core

MINOR_UNITS = 100


class Closer:
    """Ends the parents of a core."""

    def __init__(self, core: "Core") -> None:
        self._core = core

    def check_time(self, request: ParentRequest) -> None:
        """Refuse a parent whose time is over, or that its session has no room for. Raises Refusal."""
        core = self._core
        start, end = request.start_ns, request.start_ns + request.horizon_ns
        if end <= core.now_ns:
            raise Refusal("invalid", f"the horizon ends at {end} ns, the market is at {core.now_ns} ns")
        window = core.markets[request.symbol].window_of(start)
        if window is not None and end + core.rules.room_ns > window[1]:
            raise Refusal(
                "invalid", f"the horizon needs the market until {end + core.rules.room_ns} ns, its session window "
                f"closes at {window[1]} ns",
            )  # fmt: skip

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
            core.withdraw_all(parent)
            if not parent.open_children:
                self._end(parent, run, "cancelled", parent.reason)
            return False
        if parent.left == 0:
            core.withdraw_all(parent)
            if not parent.open_children:
                self._end(parent, run, "filled")
            return False
        rest = parent.resting
        if rest is not None and rest.crossing and rest.is_settled:
            core.withdraw_all(parent)  # it took what there was: no more than that was wanted
        if parent.phase is Phase.WORKING and core.now_ns < parent.end_ns:
            return True
        if parent.phase is Phase.WORKING:
            run.question = run.shadow = None
            run.tried_ns = -1
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
            core.decider.take(parent, run, parent.left)
            return
        core.withdraw_all(parent)
        if not parent.open_children:
            self._end(parent, run, "expired", run.waits_for or "the market had not enough to take")

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

    def _tca(self, parent: Parent, run: Run, how: How) -> dict[str, Any]:
        """The parent's cost analysis, plain values; costs in bps of the arrival value, above zero a cost."""
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
            "left_bps": None, "passive_share": None, "twap_ticks": None, "twap_touch_ticks": None,
            "vs_twap_bps": None, "vs_twap_touch_bps": None, "window_whole": run.bench is not None and run.bench.whole,
        }  # fmt: skip
        charged, charge2 = 0, 0
        if how == "expired" and left and parent.arrival_mid2:
            row = run.market.last or (run.market.rows[-1] if run.market.rows else None)
            if row is not None:
                cost, _ = sweep_cost(row.opposite(side), side, left, row.mid2)
                charged, charge2 = left, lost2(side, 2 * cost, left, parent.arrival_mid2)
        if filled + charged > 0 and parent.arrival_mid2:
            share = filled / (filled + charged)
            left_bps = in_bps(charge2, float((filled + charged) * parent.arrival_mid2))
            result["left_bps"] = left_bps
            result["is_bps"] = left_bps
            if found is not None:
                for name in ("spread_bps", "impact_bps", "timing_bps", "fees_bps"):
                    result[name] = share * getattr(found, name)
                result["is_bps"] = share * found.is_bps + left_bps
                result["passive_share"] = found.passive_share
        if run.bench is not None and filled:
            self._against(result, run.bench, side, sums.cost / filled)
        return result

    @staticmethod
    def _against(result: dict[str, Any], bench: Bench, side: int, average: float) -> None:
        """The average price against the window's TWAP, of the mid and of the opposite best."""
        span = bench.at_ns - bench.from_ns
        mid = bench.area / (2 * span) if span > 0 else bench.mid2 / 2
        touch = bench.touch_cost / bench.touch_lots if bench.touch_lots else None
        for name, price in (("twap", mid), ("twap_touch", touch)):
            if price:
                result[f"{name}_ticks"] = price
                result[f"vs_{name}_bps"] = 1e4 * side * (average - price) / price
