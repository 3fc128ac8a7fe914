"""Live: contracts shared with training, and the registry of signed policies."""
