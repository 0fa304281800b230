"""The loop: steps, and after each what is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from batchscale.training.course import Course
from batchscale.training.due import DUES, Due, EvaluationDue
from batchscale.training.riders import LOSS, NEWS, STOP
from batchscale.training.step import StepAnswer, StepValues
from batchscale.worker.scale import LOSS_SCALE_UNIT


@dataclass
class _Unread:
    """A step that has run: its number, its answer, what tells its seconds; its values once they are read."""

    step: int
    answer: StepAnswer
    seconds: Callable[[], float]
    values: StepValues | None = None


class Loop:
    """Trains from one step to the end, on every process alike.

    A step's values are read by one call, ``StepAnswer.read``, up to ``lag`` steps late, so that a device need not be
    waited for after every step. Then a stop, news and divergence act as many steps later; whatever is due after a step
    finds all steps before it counted, and no checkpoint is written past a divergence.

    Args:
        course: the run under way.
        lag: steps whose values may be unread while the next one runs; the same on all processes.
    """

    def __init__(self, course: Course, lag: int = 0) -> None:
        self.course, self._lag = course, lag
        self._dues: list[Due] = [make(course) for make in DUES.values()]
        self._unread: deque[_Unread] = deque()

    def run(self) -> bool:
        """Train to the end; False where all processes were asked to stop before it."""
        course, phases = self.course, self.course.parts.step.seconds
        feed = course.parts.make_feed()
        try:
            if course.totals.evaluation_is_due:
                EvaluationDue().act(course)
                course.save()
            while not (course.at_last_step or course.reached_goal):
                start = phases.begin("data")
                step = course.steps_done
                with course.kept(self._count_all):
                    passes = feed.passes(step)
                course.totals.note_scale(step, course.parts.step.loss_scale.value)
                answer = course.parts.step(step, passes)
                course.steps_done += 1
                seconds = partial(phases.clock.seconds, start, phases.clock.mark())
                self._unread.append(_Unread(step, answer, seconds))
                goes_on = self._settle()
                if goes_on is not None:
                    return goes_on
            course.skipped.share()
        except KeyboardInterrupt:  # the second one: what hangs is not waited for
            for examples in (course.parts.dataset.train, course.parts.dataset.test):
                examples.give_up()
            raise
        finally:
            feed.close()
            course.progress.close()
        return True

    def _settle(self) -> bool | None:
        """After a step: count what is old enough, do what is due. None: go on; else what ``run`` returns."""
        course, stops = self.course, False
        together = any(due.together and due.due(course) for due in self._dues) if self._lag else True
        # A stop is known to all processes alike, so they read on to the last step, which its checkpoint is to count.
        while len(self._unread) > (0 if together or stops else self._lag):
            unread = self._unread.popleft()
            values = self._count(unread)
            if values.numbers[NEWS][0]:
                course.skipped.share()
            if not values.trained:
                return self._diverged(unread.step, values)
            stops = stops or bool(values.numbers[STOP][0])
        for due in self._dues:
            # One process's own affair may come between. It must not act past a divergence that the others, and this
            # process with them, act on some steps later.
            if due.due(course) and self._count_all():
                due.act(course)
        if stops:
            course.save()
            return False
        return None

    def _count_all(self) -> bool:
        """Read and count every step that has run; whether none of them diverged."""
        return all(self._count(unread).trained for unread in self._unread)

    def _count(self, unread: _Unread) -> StepValues:
        """Read a step's values, and add them to the totals, once."""
        if unread.values is None:
            values = unread.values = unread.answer.read()
            if values.trained:
                self.course.totals.skipped_steps += values.recovers
                self.course.add_step(unread.step, values, unread.seconds())
        return unread.values

    def _diverged(self, step: int, values: StepValues) -> bool:
        """Note the step, and say why; the run ends here."""
        course = self.course
        course.totals.diverged_at_step = course.steps_done = step
        sentence = f"step {step}: loss {values.numbers[LOSS][0]}, or a gradient, not finite: diverged"
        if course.recipe.precision == "fp16":
            last = ", ".join(f"{scale:g} from step {first:g}" for first, scale in course.totals.loss_scales[-20:])
            sentence = f"{sentence}: no smaller loss scale helped ({last}; {LOSS_SCALE_UNIT})"
        course.progress.say(sentence)
        course.skipped.share()
        return True
