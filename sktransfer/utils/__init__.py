"""Helpers shared by the other packages; nothing here is public."""
