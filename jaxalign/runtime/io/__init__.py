"""Files of a run: checkpoints, artifacts, metrics, progress, workdir lock."""
