"""What makes a stage: command line, config, model, built step and its loop."""
