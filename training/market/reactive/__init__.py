"""The reactive market: a queue-reactive book that own orders change, its estimation from data, and its worlds."""
