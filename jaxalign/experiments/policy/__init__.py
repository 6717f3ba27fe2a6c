"""Policy training: networks, sampling, reward source, evaluation."""
