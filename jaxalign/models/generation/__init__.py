"""Generation: sampling, ring KV cache, decoding, continuous batching."""
