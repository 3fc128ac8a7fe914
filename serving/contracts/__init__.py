"""What training and serving must agree on, to the bit."""
