"""What moves a policy: networks, samples, sources of reward, its pages."""
