"""What would only fail after an epoch, or never be said, is refused before any work."""

from __future__ import annotations

import dataclasses

from puna.errors import InputError
from puna.evaluate import TextMetric
from puna.evaluate.cases import check_cases
from puna.flows.tune_data import TokenData
from puna.flows.tune_recipe import TuneRecipe


def check_ready(recipe: TuneRecipe, data: TokenData, context: int) -> None:
    """Refuse a run that could not go to its end, or not as its recipe says.

    Args:
        recipe: Of the run.
        data: As tokens.
        context: Tokens that the model takes.

    Raises:
        InputError: An example is longer than the context; something goes by the validation
            examples and there are none; or what is to be watched cannot be found on them.
        MissingPackageError: The package of a metric that is to be watched is not installed.
    """
    longest = max(len(one) for examples in data.examples.values() for one in examples)
    if longest > context:
        raise InputError(
            f"the longest example has {longest} tokens; the model's context is {context}",
            fix=f"set examples.max_tokens: {context}",
        )
    if data.examples["validation"]:
        _check_watch(recipe, data, context)
        return
    named = {
        "train.best_metric": recipe.train.best_metric != "validation_loss",
        "train.patience": recipe.train.patience is not None,
        "watch.metrics": bool(recipe.watch.metrics),
    }
    for key, given in named.items():
        if given:
            raise InputError(
                f"{key} goes by the validation examples, and there are none",
                fix=f"hold some out (data.splits.validation: 0.1), or leave out {key}",
            )


def _check_watch(recipe: TuneRecipe, data: TokenData, context: int) -> None:
    if not recipe.watch.metrics:
        return
    config = dataclasses.replace(recipe.evaluation, metrics=recipe.watch.metrics)
    texts = config.needs("outputs")
    for name in texts:
        TextMetric(name, language=config.target_language, tokenizer=config.bleu_tokenizer)
    try:
        check_cases(data.cases["validation"], context, answering=bool(texts))
    except InputError as error:
        where = "watch.metrics, on the validation examples"
        raise InputError(error.what, where=where, fix=error.fix) from error
