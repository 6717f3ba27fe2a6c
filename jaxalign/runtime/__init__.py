"""Mechanism that no stage owns: mesh, checkpoints, guards, reports."""
