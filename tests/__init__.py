"""Tests, and the references and rules that they share."""
