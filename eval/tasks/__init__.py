"""Every benchmark by name. To add one: one file here, one line below."""

from eval.task import Task
from eval.tasks import agreement, bold, next_word, perplexity

TASKS: dict[str, Task] = {
    "perplexity": perplexity.TASK,
    "bold": bold.TASK,
    "next_word": next_word.TASK,
    "agreement": agreement.TASK,
}
