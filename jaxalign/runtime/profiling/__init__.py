"""Profiling: compiled programs, memory, collectives."""
