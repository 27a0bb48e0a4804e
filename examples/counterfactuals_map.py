"""Only the counterfactuals, with datasets.map: augment any data set of texts, or of records with several texts."""

from datasets import Dataset, concatenate_datasets

from counterfactuals.records import reverse_record
from counterfactuals.text.lexicon import load_lexicon
from counterfactuals.text.reverse import Reverser

texts = ["She is an engineer and he is a nurse.", "My mother told her son a story.", "The bridge is closed."]
data = Dataset.from_dict({"text": texts})
reverser = Reverser(load_lexicon("gender"), policy="skip")  # leave what may not be reversed coherently

reversed_ = data.map(lambda row: reverse_record(row, ["text"], reverser))
counterfactuals = reversed_.filter(lambda row, n: row["text"] != texts[n], with_indices=True)
both = concatenate_datasets([data, counterfactuals])
for text in both["text"]:
    print(text)
assert len(both) == 5 and both["text"][3] == "He is an engineer and she is a nurse."

chats = Dataset.from_dict({"prompt": ["Who is she?"], "response": ["She is his aunt."], "source": ["Her notes"]})
chats = chats.map(lambda row: reverse_record(row, ["prompt", "response"], reverser))  # together, all or none
assert chats[0] == {"prompt": "Who is he?", "response": "He is her uncle.", "source": "Her notes"}
