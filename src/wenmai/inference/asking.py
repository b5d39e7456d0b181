"""What a user asks about, as an example of the task; what is wrong with it, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from wenmai.data.problems import problems_of
from wenmai.errors import UserError
from wenmai.tasks.task import Example, Task


def asked(task: Task[Any, Any], item: Any) -> Example:
    """The example of a text or record.

    Raises:
        UserError: it is nothing that the task predicts for; names every field that is wrong.
    """
    try:
        example: Example = task.as_example(item)
        return example
    except ValidationError as error:
        record = item if isinstance(item, Mapping) else {}
        problems = problems_of(error, task.Example, record, task.name)
        raise UserError("; ".join(map(str, problems))) from None
