"""Every benchmark by name. To add one: one file here, one line below."""

from eval.task import Task
from eval.tasks import (
    agreement,
    bbq,
    bios,
    blimp,
    bold,
    ceat,
    classify,
    cooccurrence,
    counterfactual_prompts,
    crows_pairs,
    diversity,
    exposure,
    fluency,
    harness,
    hatexplain,
    hellaswag,
    honest,
    impact,
    inversion,
    last_word,
    membership,
    next_word,
    perplexity,
    regard,
    seat,
    sst2,
    stereoset,
    stories,
    winobias,
    winogender,
)

TASKS: dict[str, Task] = {
    "perplexity": perplexity.TASK,
    "last_word": last_word.TASK,
    "hellaswag": hellaswag.TASK,
    "blimp": blimp.TASK,
    "fluency": fluency.TASK,
    "diversity": diversity.TASK,
    "bold": bold.TASK,
    "cooccurrence": cooccurrence.TASK,
    "stories": stories.TASK,
    "next_word": next_word.TASK,
    "agreement": agreement.TASK,
    "crows_pairs": crows_pairs.TASK,
    "stereoset": stereoset.TASK,
    "winobias": winobias.TASK,
    "winogender": winogender.TASK,
    "bbq": bbq.TASK,
    "seat": seat.TASK,
    "ceat": ceat.TASK,
    "bios": bios.TASK,
    "hatexplain": hatexplain.TASK,
    "sst2": sst2.TASK,
    "classify": classify.TASK,
    "honest": honest.TASK,
    "regard": regard.TASK,
    "impact": impact.TASK,
    "counterfactual_prompts": counterfactual_prompts.TASK,
    "membership": membership.TASK,
    "exposure": exposure.TASK,
    "inversion": inversion.TASK,
}


ALSO_CALLED = {"lambada": "last_word"}


def find_task(name: str) -> Task | None:
    """The task of that name, or the harness's for `lm_eval:NAME`."""
    return TASKS.get(ALSO_CALLED.get(name, name)) or harness.task(name)
