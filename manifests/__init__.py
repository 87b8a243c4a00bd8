"""The facts, in text: corpora, clips, tasks, prompts and recipes."""

from manifests.clips import AudioRef, Clip, Instruction
from manifests.corpus import Corpus, corpus_names, load_corpus
from manifests.errors import Failed, TooManyRefusals, UserError
from manifests.recipe import Recipe, load_recipe, recipe_names
from manifests.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "AudioRef",
    "Clip",
    "Corpus",
    "Failed",
    "Instruction",
    "Recipe",
    "Task",
    "TooManyRefusals",
    "UserError",
    "corpus_names",
    "load_corpus",
    "load_recipe",
    "recipe_names",
]
