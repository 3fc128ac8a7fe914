"""The risk gateway.

The only way to a venue, trusting no model and no sender; it fails closed, loses nothing, stops at once.
"""
