"""The report of `shortfall simulate`: what a simulated world is made of, and how it compares with its source."""
