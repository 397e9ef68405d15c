"""What the configs of papers on WMT 2014 share: the raw text, from TensorFlow Datasets."""

from typing import Any

DATASETS = {"de": "tfds:wmt14_translate/de-en", "fr": "tfds:wmt14_translate/fr-en"}


def sentences(source: str, target: str) -> dict[str, Any]:
    """The keys of `data` for English with German or French; newstest2014 is the test split."""
    dataset = DATASETS[target if source == "en" else source]
    return {"source": source, "target": target, "train": dataset, "valid": dataset, "test": dataset}
