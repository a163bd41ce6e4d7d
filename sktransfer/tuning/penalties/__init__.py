"""Penalties on the loss of the network that is tuned, one per module."""
