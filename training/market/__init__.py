"""The market simulator: own orders, fills and latency over a day's book states (no ray, no torch)."""
