"""Stylized facts of a market's book and trades, recorded or simulated: each a curve and some numbers with intervals."""
