"""Every benchmark by name. To add one: one file here, one line below."""

from eval.task import Task
from eval.tasks import agreement, bbq, bold, crows_pairs, next_word, perplexity, stereoset, winobias, winogender

TASKS: dict[str, Task] = {
    "perplexity": perplexity.TASK,
    "bold": bold.TASK,
    "next_word": next_word.TASK,
    "agreement": agreement.TASK,
    "crows_pairs": crows_pairs.TASK,
    "stereoset": stereoset.TASK,
    "winobias": winobias.TASK,
    "winogender": winogender.TASK,
    "bbq": bbq.TASK,
}
