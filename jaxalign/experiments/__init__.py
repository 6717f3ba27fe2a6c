"""Stages, one file each: config, `build(config, mesh)` and `run()`.

What stages share lies in the folders, each with its own subject.
"""
