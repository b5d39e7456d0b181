"""The doctor: looks at a run's configuration and data before any training."""
