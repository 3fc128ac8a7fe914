"""What the gateway costs: the core, the order port, FIX; `rows.run` is all of it."""
