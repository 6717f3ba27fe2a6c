"""From any file of preferences to a batch that is a function of its step."""
