"""What stands on a backbone: hidden states to outputs, outputs to a loss. One file a head; tensors only."""
