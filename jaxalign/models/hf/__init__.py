"""Hugging Face folders: configs and weights, per model family."""
