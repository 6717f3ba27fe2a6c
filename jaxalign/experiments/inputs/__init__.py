"""What stages read: pairs, texts, prompts, answers of an endpoint."""
