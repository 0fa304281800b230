"""The sharpness of runs, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from batchscale.measure.sharpness.answer import Answer, OfRun
from batchscale.measure.sharpness.sharpness import Sharpness

FORMS = {"keskar": "Keskar's form", "adaptive": "the adaptive form"}
_AVERAGES = {"averages": "its running averages", "recomputed": "averages recomputed at each point over these"}
_FORMULAS = {"keskar": "|y_i| <= epsilon (|(A^+ x)_i| + 1)", "adaptive": "|y_i| <= epsilon, A scaled by |x|"}


def title(answer: Answer) -> str:
    """For people."""
    runs = list(dict.fromkeys(run.run for run in answer.runs))
    return f"Sharpness of {', '.join(runs[:4])}{' and others' if len(runs) > 4 else ''}"


def asked(answer: Answer) -> str:
    """What was measured, with all that limits it."""
    searched, noun = answer.searched, answer.noun
    boxes = "; ".join(f"{FORMS[form]}: {_FORMULAS[form]}" for form in searched.forms)
    spaces = [
        *(["the full space"] if searched.full else []),
        *(
            [f"{searched.repeats} random subspaces of {searched.subspace} dimensions (seed {answer.seed})"]
            if searched.subspace
            else []
        ),
    ]
    steps = ", ".join(dict.fromkeys(f"{run.run} at step {run.step}" for run in answer.runs))
    parts = ", ".join(dict.fromkeys(run.part for run in answer.runs if run.part))
    moved = f" The weights of {parts} move, those of each by themselves." if parts else ""
    return (
        f"100 (max f(x + A y) - f(x)) / (1 + f(x)) in a box. {boxes}. f is the training loss over the first "
        f"{answer.examples} of {answer.population} training {noun} in one fixed order, without augmentation, dropout "
        f"off, batch norm by {_AVERAGES[answer.batch_norm]}. The maximum is that of L-BFGS-B, "
        f"{'plain' if searched.plain else 'scaled to the box'}, after at most "
        f"{searched.iterations} iterations, in {' and in '.join(spaces)}.{moved} {steps}. Test figures are of the same "
        f"weights. Sharpness describes the loss around these weights; it is no proof of why a net generalises."
    )


def sentence(answer: Answer) -> str:
    """The answer."""
    parts = [_compared(answer, form) for form in answer.searched.forms]
    first = answer.runs[0].numbers[0]
    scores = _listed({run.run: answer.score.words(run.test_score) for run in answer.runs})
    place = f"sharpness at epsilon {first.epsilon:g}, {space_words(first)}"
    return f"{place}: {'; '.join(parts)}; test: {scores}{_orders(answer)}"


def _compared(answer: Answer, form: str) -> str:
    return f"{form} {_listed({run.name: f'{percent(first_of(run, form).value):g} %' for run in answer.runs})}"


def _listed(texts: Mapping[str, str]) -> str:
    return ", ".join(text if len(texts) == 1 else f"{text} ({name})" for name, text in texts.items())


def _orders(answer: Answer) -> str:
    """Whether runs stand in the same order by sharpness as by the test score: said, not explained."""
    if len(answer.runs) < 2 or any(run.part for run in answer.runs):
        return ""
    sign = 1 if answer.score.better == "lower" else -1
    by_score = sorted(answer.runs, key=lambda run: sign * run.test_score)
    same = {
        form: by_score == sorted(answer.runs, key=lambda run: first_of(run, form).value)
        for form in answer.searched.forms
    }
    words = [f"{'the same' if agree else 'another'} order by {FORMS[form]}" for form, agree in same.items()]
    return f". From best to worst by the test {answer.score.name}, and from least sharp on: {', '.join(words)}"


def first_of(run: OfRun, form: str) -> Sharpness:
    """A run's first number of a form."""
    return next(number for number in run.numbers if number.form == form)


def space_words(number: Sharpness) -> str:
    """Where it was searched."""
    return "full space" if number.subspace is None else f"{number.subspace} random dimensions"


def percent(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")


def warnings(answer: Answer) -> Iterator[str]:
    """One line each."""
    sizes = {(run.part, run.weights) for run in answer.runs}
    if len(sizes) > len({part for part, _ in sizes}):
        counts = ", ".join(f"{run.name} {run.weights}" for run in answer.runs)
        yield f"the runs' nets differ in size ({counts} weights), and their boxes with them: sharpness hardly compares"
    numbers = [number for run in answer.runs for number in run.numbers]
    limited, searches = sum(n.limited for n in numbers), sum(len(n.searches) for n in numbers)
    if limited:
        yield (
            f"{limited} of {searches} searches ended by their limit of {answer.searched.iterations} iterations (Keskar "
            f"et al. set 10): their sharpness is a lower bound, and a larger --iterations comes closer"
        )
