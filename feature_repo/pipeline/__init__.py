"""From bronze events to feature values: cleaning, gates, books, kernels and the feature store."""
