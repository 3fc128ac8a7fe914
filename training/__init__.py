"""Learning: market simulator, execution environments and agents, signals, evaluation."""
