"""Numbers from gold and predicted: plain values in, :class:`~wenmai.metrics.scores.Scores` out; no torch.

Names of metrics, the same everywhere: ``precision``, ``recall`` and ``f1`` without a prefix are micro
averages (counts pooled over labels), ``macro_`` is the mean over the labels that occur in gold or predicted,
``weighted_`` is the mean weighted by gold counts, ``label/<name>/<metric>`` is one label (its name may hold
slashes itself: split from both ends). A ratio whose denominator is 0 is 0.0, and so is any other metric that
its examples leave undefined.
"""
