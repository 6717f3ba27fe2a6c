"""Dataset statistics: counts, style, duplicates, trivial baselines."""
