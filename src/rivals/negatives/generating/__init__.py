"""Generators write negatives: hard passages for a query, hard queries for a page; by language models or by rules."""

from rivals.negatives.generating.documents import (
    GeneratedForOthers,
    GeneratedSource,
    Widened,
    WrittenNegatives,
    write_negatives,
)
from rivals.negatives.generating.generators import WRITER_PROMPTS, Generator, PromptGenerator
from rivals.negatives.generating.queries import QueryGroups, WrittenQueries, query_groups, write_queries
from rivals.negatives.generating.rules import SpliceGenerator, TemplateGenerator
from rivals.negatives.generating.style import style_probe_auc
from rivals.negatives.generating.writing import GenerationReport, TextChecks, extended

__all__ = [
    "WRITER_PROMPTS",
    "GeneratedForOthers",
    "GeneratedSource",
    "GenerationReport",
    "Generator",
    "PromptGenerator",
    "QueryGroups",
    "SpliceGenerator",
    "TemplateGenerator",
    "TextChecks",
    "Widened",
    "WrittenNegatives",
    "WrittenQueries",
    "extended",
    "query_groups",
    "style_probe_auc",
    "write_negatives",
    "write_queries",
]
