"""Datasets and Lightning modules that forecast the mid-price move."""
