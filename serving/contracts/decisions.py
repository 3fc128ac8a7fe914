"""What the gateway answers to a request: allowed, or denied by a named control with the value and the limit."""

import msgspec

from serving.contracts.orders import INT64_MAX, ContractError, decode_exactly


class Allowed(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False, tag_field="kind", tag="allowed"
):
    """The request passed every control and is in the journal; `order_id` is the number the venue sees."""

    key: str
    order_id: int
    algorithm: str
    trader: str

    def __post_init__(self) -> None:
        if type(self.order_id) is not int or not 0 < self.order_id <= INT64_MAX:
            raise ContractError(f"order_id {self.order_id!r} is not an integer from 1 to {INT64_MAX}")


class Denied(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False, tag_field="kind", tag="denied"
):
    """The request was refused: `value` against `limit` where the control compares numbers, else None."""

    control: str
    message: str
    value: int | None = None
    limit: int | None = None
    key: str = ""
    algorithm: str = ""
    trader: str = ""


Decision = Allowed | Denied

_DECISIONS: msgspec.json.Decoder[Decision] = msgspec.json.Decoder(Decision)


def decode_decision(raw: bytes) -> Decision:
    """A decision from its bytes (`serving.contracts.orders.encode`). Raises ContractError."""
    return decode_exactly(_DECISIONS, raw)
