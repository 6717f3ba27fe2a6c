"""Batching: token datasets, epoch plan, packing, batch loaders."""
