"""LLM labels of stages: a chat model as judge, votes of personas."""
