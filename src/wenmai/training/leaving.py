"""When something goes wrong in one of several processes: the reason is told once, and the others leave without a word.

A process that fails closes its connections, so the others fail too, with an error of the connection that says nothing
about the reason. Before it leaves, the first one to fail therefore puts a note where all of them can read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from wenmai.errors import LeftAlone, UserError

SOMEONE_LEFT = "wenmai/someone-left"
LOST = ("closed by peer", "reset by peer", "Connection refused", "Broken pipe", "timed out", "timeout")
"""How the errors of connections speak of a process that is gone."""


@contextmanager
def telling_once() -> Iterator[None]:
    """Marks errors of the user that another process tells too, and turns those that come of its end into silence.

    Raises:
        UserError: as it was, with ``told`` set.
        LeftAlone: another process left; this one lost the connection to it.
    """
    store = dist.distributed_c10d._get_default_store()
    try:
        yield
    except UserError as error:
        name = hashlib.sha256(str(error).encode()).hexdigest()
        error.told = store.add(f"wenmai/told/{name}", 1) > 1
        store.add(SOMEONE_LEFT, 1)
        raise
    except RuntimeError as error:  # what torch.distributed raises
        if store.add(SOMEONE_LEFT, 1) > 1 or any(word in str(error) for word in LOST):
            raise LeftAlone("another process of this run ended") from error
        raise
    except Exception:
        store.add(SOMEONE_LEFT, 1)
        raise
