"""Common parts of stages: command line, config, model, built step, loop."""
