"""The loop: steps, and after each what is due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from batchscale.data.feed import Feed
from batchscale.training.answer import StepAnswer, StepValues
from batchscale.training.course import Course
from batchscale.training.due import DUES, Due, EvaluationDue
from batchscale.training.riders import LOSS, NEWS, STOP
from batchscale.worker.scale import LOSS_SCALE_UNIT


@dataclass
class _Unread:
    """A step that has run: its number, its answer, when it began, its seconds, its loss scale; its values once read."""

    step: int
    answer: StepAnswer
    start: Any
    seconds: Callable[[], float]
    loss_scale: float
    values: StepValues | None = None


class Loop:
    """Trains from one step to the end, on every process alike.

    A step's values are read by one call, ``StepAnswer.read``, up to ``lag`` steps late, so that a device need not be
    waited for after every step. Then a stop, news and divergence act as many steps later; whatever is due after a step
    finds all steps before it counted, and no checkpoint is written past a divergence. Where the device has not taken an
    update that the host had launched, the steps launched since are void, and run again.

    Args:
        course: the run under way.
        lag: steps whose values may be unread while the next one runs, the same on all processes; None: the gate's.
    """

    def __init__(self, course: Course, lag: int | None = None) -> None:
        self.course, self._stated_lag = course, lag
        self._dues: list[Due] = [make(course) for make in DUES.values()]
        self._unread: deque[_Unread] = deque()
        self._since: Any = None  # when the first of the steps began that are void

    @property
    def _lag(self) -> int:
        return self.course.parts.step.gate.lag if self._stated_lag is None else self._stated_lag

    def run(self) -> bool:
        """Train to the end; False where all processes were asked to stop before it. Its checkpoints are then there."""
        with self.course.saved():
            return self._run()

    def _run(self) -> bool:
        course = self.course
        feed = course.parts.make_feed()
        try:
            if course.totals.evaluation_is_due:
                EvaluationDue().act(course)
                course.save()
            while not (course.at_last_step or course.reached_goal):
                self._step(feed)
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

    def _step(self, feed: Feed) -> None:
        course, phases = self.course, self.course.parts.step.seconds
        step, start = course.steps_done, phases.begin("data")
        start, self._since = (start if self._since is None else self._since), None
        with course.kept(self._count_all):
            passes = feed.passes(step)
        loss_scale = course.parts.step.loss_scale.value
        answer = course.parts.step(step, passes)
        course.steps_done += 1
        seconds = partial(phases.clock.seconds, start, phases.clock.mark())
        self._unread.append(_Unread(step, answer, start, seconds, loss_scale))

    def _settle(self) -> bool | None:
        """After a step: count what is old enough, do what is due. None: go on; else what ``run`` returns."""
        course, stops, newest = self.course, False, self.course.steps_done
        together = any(due.together and due.due(course) for due in self._dues) if self._lag else True
        # A stop is known to all processes alike, so they read on to the last step, which its checkpoint is to count.
        while len(self._unread) > (0 if together or stops else self._lag):
            unread = self._unread.popleft()
            values = self._count(unread)
            if not values.settled and (taken_back := self._take_back(unread, values)) is not None:
                values = taken_back
            if not values.settled:  # it runs again, and tells all else then
                break
            if values.numbers[NEWS][0]:
                course.skipped.share()
            if not values.trained:
                return self._diverged(unread.step, values)
            stops = stops or bool(values.numbers[STOP][0])
        if course.steps_done == newest:
            self._act()
        if stops:
            course.save()
            return False
        return None

    def _act(self) -> None:
        """Do what is due after the last step."""
        for due in self._dues:
            # One process's own affair may come between. It must not act past a divergence that the others, and this
            # process with them, act on some steps later.
            if due.due(self.course) and self._count_all():
                due.act(self.course)

    def _count_all(self) -> bool:
        """Read and count every step that has run, until one after which the run does not go on; whether none is so."""
        return all(self._count(unread).trained for unread in self._unread)

    def _count(self, unread: _Unread) -> StepValues:
        """Read a step's values, and add them to the totals, once."""
        if unread.values is None:
            unread.values = unread.answer.read()
            self._add(unread, unread.values)
        return unread.values

    def _add(self, unread: _Unread, values: StepValues) -> None:
        course = self.course
        if values.settled:
            course.totals.note_scale(unread.step, unread.loss_scale)
        if values.trained:
            course.totals.skipped_steps += values.recovers
            course.add_step(unread.step, values, unread.seconds())

    def _take_back(self, unread: _Unread, values: StepValues) -> StepValues | None:
        """Follow the device, which did not take the update of a step; its values, None where it is to run again."""
        step, void = self.course.parts.step, list(self._unread)
        settled = step.take_back(unread.step, values, [one.answer for one in (unread, *void)])
        again = void if settled is not None else [unread, *void]
        if again:
            self.course.steps_done, self._since = again[0].step, again[0].start
        self._unread.clear()
        if settled is not None:
            self._add(unread, settled)
        return settled

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
