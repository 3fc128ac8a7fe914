"""One reader per vendor format, all yielding one event schema, and the synthetic market that stands in for a vendor."""
