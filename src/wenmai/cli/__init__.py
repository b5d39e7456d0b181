"""The command line: verbs to functions. The only folder that prints.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 a bug, 2 the
user's input, 130 and 143 stopped by Ctrl-C and SIGTERM. What a verb needs is imported inside it, so that ``--help``
answers at once.
"""

from wenmai.cli import corpus, embeddings, making, positions, several, tokenizer, using, viewing
from wenmai.cli.app import app
from wenmai.cli.main import main

__all__ = [
    "app",
    "corpus",
    "embeddings",
    "main",
    "making",
    "positions",
    "several",
    "tokenizer",
    "using",
    "viewing",
]
