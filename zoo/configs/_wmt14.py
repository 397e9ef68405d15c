"""WMT 2014 as TensorFlow Datasets has it, raw text: what the configs of papers that are measured on it share."""

from typing import Any

DATASETS = {"de": "tfds:wmt14_translate/de-en", "fr": "tfds:wmt14_translate/fr-en"}


def sentences(source: str, target: str) -> dict[str, Any]:
    """The keys of `data` that say where pairs of English and German or French come from; newstest2014 is the test."""
    dataset = DATASETS[target if source == "en" else source]
    return {"source": source, "target": target, "train": dataset, "valid": dataset, "test": dataset}
