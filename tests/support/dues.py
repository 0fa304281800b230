"""Something that a test lets be due after a step of a run, by the seam that everything else is due by."""

from __future__ import annotations

from collections.abc import Callable

from batchscale.run.run import Stopped
from batchscale.training.course import Course
from batchscale.training.due import DUES, Due


class After:
    """Due after each step for which ``when`` says so."""

    together = True

    def __init__(self, when: Callable[[Course], bool], act: Callable[[Course], None]) -> None:
        self._when, self._act = when, act

    def due(self, course: Course) -> bool:
        return self._when(course)

    def act(self, course: Course) -> None:
        self._act(course)


def after(step: int, act: Callable[[Course], None]) -> Callable[[Course], Due]:
    """For DUES: ``act`` once, after this step and all else that is due after it."""
    return lambda _: After(lambda course: course.steps_done == step, act)


def stop_after(step: int) -> Callable[[Course], Due]:
    """For DUES: a stop after this step, as if a signal had come, with a checkpoint."""

    def stop(course: Course) -> None:
        course.save()
        raise Stopped(15, course.steps_done, "go on with the same call")

    return after(step, stop)


def first(when: Callable[[Course], bool], act: Callable[[Course], None]) -> dict[str, Callable[[Course], Due]]:
    """In the place of DUES: ``act`` before all else that is due."""
    return {"first": lambda _: After(when, act), **DUES}
