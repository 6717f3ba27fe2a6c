"""Jitted updates; they never see a dataset, a file or a clock."""
