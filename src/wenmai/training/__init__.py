"""The loop and what it stands on: plan, gradients, optimizer, checkpoint, journal."""
