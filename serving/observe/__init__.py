"""What a process shows of itself: logs, metrics and probes, alerts. Standard library and prometheus-client alone."""
