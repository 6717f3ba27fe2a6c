"""LLM labels: personas, prompts to a judge, client of an endpoint."""
