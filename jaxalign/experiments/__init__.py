"""One file per stage: config, `build(config, mesh)` and `run()`.

What stages share lies in the folders, each with its own subject.
"""
