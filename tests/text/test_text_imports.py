"""The lowest level stays light: text is read without torch or transformers being loaded."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import wenmai.text, wenmai.text.normalize, wenmai.text.sentences, wenmai.text.spans, wenmai.text.tags
import wenmai.text.words
print(sorted({"torch", "transformers", "tokenizers", "opencc", "rjieba"} & set(sys.modules)))
"""


def test_text_needs_no_torch():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
