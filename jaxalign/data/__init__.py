"""Preference data: from files to batches that are a function of the step."""
