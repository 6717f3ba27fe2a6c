"""Decoder, reward heads and weights; the only folder that imports flax."""
