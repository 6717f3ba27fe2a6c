"""One file per stage: config, `build(config, mesh)` and `run()`."""
