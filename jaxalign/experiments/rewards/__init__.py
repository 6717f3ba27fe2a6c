"""What reward models are made of, and how their scores are told."""
