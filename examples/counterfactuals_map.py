"""Only the counterfactuals, with datasets.map: augment any data set of texts."""

from datasets import Dataset, concatenate_datasets

from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser

texts = ["She is an engineer and he is a nurse.", "Mary told her son a story.", "The bridge is closed."]
data = Dataset.from_dict({"text": texts})
reverser = Reverser(load_lexicon("gender"), policy="skip")  # leave out what cannot be reversed coherently


def reverse(row: dict) -> dict:
    reversal = reverser(row["text"])
    return {"text": reversal.reversed, "changed": bool(reversal.spans)}


counterfactuals = data.map(reverse).filter(lambda row: row["changed"]).remove_columns("changed")
both = concatenate_datasets([data, counterfactuals])
for text in both["text"]:
    print(text)
assert len(both) == 5 and both["text"][3] == "He is an engineer and she is a nurse."
