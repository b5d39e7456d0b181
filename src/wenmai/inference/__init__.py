"""A trained model over texts: batched by tokens, answered in order."""
