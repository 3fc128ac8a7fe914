"""Feast entities: what a feature value belongs to."""

from feast import Entity, ValueType

instrument = Entity(
    name="instrument",
    join_keys=["instrument_id"],
    value_type=ValueType.STRING,
    description="One symbol at one venue, `VENUE:SYMBOL`",
)
