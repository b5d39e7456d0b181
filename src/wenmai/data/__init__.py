"""Files to validated examples to batches; knows no task.

``readers`` turns any source into records with their place, ``examples`` validates and stores them, ``split``
divides them, ``batching`` puts their rows into batches.
"""
