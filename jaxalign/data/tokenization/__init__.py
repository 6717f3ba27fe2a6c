"""Tokenization: tokenizers, chat templates, token ids of records."""
