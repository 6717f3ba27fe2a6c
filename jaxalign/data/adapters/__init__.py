"""Adapters: other people's preference files as records."""
