"""Raw text for pre-training: clean, deduplicate, keep test sets out, mix. No torch.

A step is a plain function ``Document -> Document | Rejection`` (:mod:`wenmai.corpus.documents`), so the same list of
steps runs here over several processes (:mod:`wenmai.corpus.running`) and on a cluster (:mod:`wenmai.corpus.cluster`).
"""
