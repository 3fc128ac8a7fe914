"""Splits in time, paired statistics, transaction cost analysis and reports."""
