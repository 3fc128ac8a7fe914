"""Data: from a vendor's file to a feature value; also the Feast repository."""
