"""The ClOrdID that a venue last accepted for each order: what the next cancel or replace must name as OrigClOrdID."""

from serving.contracts.orders import Replaced, ReplaceRejected
from serving.wire.fix_orders import cl_ord_id
from serving.wire.fix_reports import Answer


class AcceptedIds:
    """Follows the answers of one venue. After a restart, the answers to a mass status request say it again."""

    def __init__(self) -> None:
        self._accepted: dict[int, str] = {}
        self._answered: dict[int, set[int]] = {}  # replaces of each open order that have their answer

    def orig(self, order_id: int) -> str:
        """OrigClOrdID for the next request about an order."""
        return self._accepted.get(order_id, cl_ord_id(order_id))

    def is_echo(self, answer: Answer) -> bool:
        """Whether the replace has its answer already: said again, it must not pass for the answer to the next one."""
        answers = isinstance(answer.report, Replaced | ReplaceRejected)
        return answers and answer.request_id in self._answered.get(answer.order_id, ())

    def take(self, answer: Answer) -> None:
        """Take an answer, in the order in which they came."""
        state = answer.state
        if isinstance(answer.report, Replaced | ReplaceRejected) and answer.request_id != answer.order_id:
            self._answered.setdefault(answer.order_id, set()).add(answer.request_id)
        if state is None:
            return
        if not state.is_open:
            self._accepted.pop(answer.order_id, None)
            self._answered.pop(answer.order_id, None)
        elif isinstance(answer.report, Replaced) or (answer.is_status and answer.request_id != answer.order_id):
            self._accepted[answer.order_id] = state.cl_ord_id
