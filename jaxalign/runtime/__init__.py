"""Runtime: mesh, checkpoints, guards and reports that all stages share."""
