"""The EMS: works parent orders to their end with the champion's decisions, behind the risk gateway."""
