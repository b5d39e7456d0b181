"""One file per task; this dict is the only registry."""

from __future__ import annotations

from typing import Any

from wenmai.tasks.causal_lm import CausalLM
from wenmai.tasks.cloze_classification import ClozeClassification
from wenmai.tasks.contrastive_classification import ContrastiveClassification
from wenmai.tasks.dependency_parsing import DependencyParsing
from wenmai.tasks.document_layout import DocumentLayout
from wenmai.tasks.masked_lm import MaskedLM
from wenmai.tasks.multiple_choice import MultipleChoice
from wenmai.tasks.ner import Ner
from wenmai.tasks.question_answering import QuestionAnswering
from wenmai.tasks.relation_classification import RelationClassification
from wenmai.tasks.relation_extraction import RelationExtraction
from wenmai.tasks.slot_filling import SlotFilling
from wenmai.tasks.task import Task
from wenmai.tasks.text_classification import TextClassification
from wenmai.tasks.text_embedding import TextEmbedding
from wenmai.tasks.text_matching import TextMatching

TASKS: dict[str, type[Task[Any, Any]]] = {
    task.name: task
    for task in (
        TextClassification,
        TextMatching,
        ClozeClassification,
        ContrastiveClassification,
        Ner,
        DependencyParsing,
        SlotFilling,
        RelationClassification,
        RelationExtraction,
        QuestionAnswering,
        MultipleChoice,
        DocumentLayout,
        TextEmbedding,
        MaskedLM,
        CausalLM,
    )
}
