"""Datasets of stages: the `data` section of a config, read and checked."""
