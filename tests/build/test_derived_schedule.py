"""The lr's warmup and decay as a recipe gives them: where they start and end, what is refused, what is said of them."""

import pytest
from support.runs import RECIPE

from batchscale.build.build import validate
from batchscale.build.derive import derived_numbers
from batchscale.build.planning import plan_of, schedule_of
from batchscale.errors import RecipeError
from batchscale.recipe import load_recipe, recipe_from
from batchscale.update.schedule import Decay, Schedule

IMAGES = 1_600  # of which kn = 32: 50 steps an epoch
GIVEN = (
    "epochs=4", "learning_rate.reference=0.1", "learning_rate.reference_minibatch=16",
    "learning_rate.decay={kind: none}",
)  # fmt: skip


def schedule(*overrides):
    recipe = recipe_from(RECIPE, [*GIVEN, *overrides])
    return schedule_of(recipe, plan_of(recipe, IMAGES))


def row(name, *overrides):
    recipe = recipe_from(RECIPE, [*GIVEN, *overrides])
    return next((r for r in derived_numbers(recipe, IMAGES, 1) if r.name == name), None)


def test_a_warmup_starts_where_it_is_told_and_else_at_the_reference():
    told = schedule("learning_rate.warmup={kind: gradual, epochs: 1, start: 0}")
    assert [told(t) for t in (0, 1, 25, 50, 51)] == pytest.approx([0, 0.2 / 50, 0.1, 0.2, 0.2], rel=1e-12)
    own = schedule("learning_rate.warmup={kind: gradual, epochs: 1}")
    assert [own(t) for t in (0, 25, 50)] == pytest.approx([0.1, 0.15, 0.2], rel=1e-12)
    constant = schedule("learning_rate.warmup={kind: constant, epochs: 1, start: 0.03}")
    assert [constant(t) for t in (0, 49, 50)] == [0.03, 0.03, 0.2]
    assert (
        "from lr 0 for 50 steps" in row("warmup", "learning_rate.warmup={kind: gradual, epochs: 1, start: 0}").formula
    )


@pytest.mark.parametrize(("kind", "half"), [("cosine", 0.5), ("polynomial", 0.25)])
def test_a_decay_ends_at_its_own_epoch_and_stays_or_is_cut_off_by_the_runs_end(kind, half):
    warm = "learning_rate.warmup={kind: gradual, epochs: 1}"
    early = schedule(warm, f"learning_rate.decay={{kind: {kind}, end: 3, final: 0.1}}")
    shares = [early(t) / 0.2 for t in (50, 100, 150, 151, 199)]
    assert shares == pytest.approx([1, 0.1 + 0.9 * half, 0.1, 0.1, 0.1], rel=1e-12)
    late = schedule(warm, f"learning_rate.decay={{kind: {kind}, end: 7}}")
    assert late(200) == pytest.approx(0.2 * half, rel=1e-12)
    assert Schedule(0.1, 0.2, 200, "gradual", 50, Decay(kind, end=150.0, final=0.1))(120) == early(120)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["learning_rate.decay={kind: step, epochs: [1], end: 3}"],
            r"decay: end=3 has no place in kind: step, only in",
        ),
        (
            ["learning_rate.decay={kind: none, end: 3}"],
            r"end=3 has no place in kind: none.* such as learning_rate.decay=\{kind: none\}",
        ),
        (["learning_rate.decay={kind: cosine, end: 0}"], r"learning_rate.decay.end=0: .*greater than 0"),
        (["learning_rate.warmup={kind: gradual, epochs: 1, start: -1}"], r"warmup.start=-1: .*or equal to 0"),
        (
            ["learning_rate.warmup={kind: gradual, epochs: 1, start: 0.3}"],
            r"warmup.start=0.3: must not be above the lr that the warmup leads to, 0.2; give a lower one",
        ),
        (
            ["learning_rate.warmup={kind: gradual, epochs: 2}", "learning_rate.decay={kind: cosine, end: 2}"],
            r"decay.end is step 100, and the warmup lasts 100 steps: the decay must end after the warmup",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(overrides, said):
    with pytest.raises(RecipeError, match=said) as error:
        schedule(*overrides)
    assert "\n" not in str(error.value)


def test_a_schedule_that_does_not_fit_is_refused_before_any_process_starts():
    recipe = load_recipe("digits-cnn", ["learning_rate.warmup.start=99"])
    with pytest.raises(RecipeError, match=r"warmup.start=99: must not be above"):
        validate(recipe, None, 1)


def test_a_warmup_longer_than_the_run_says_that_it_is_never_over():
    cut = row("warmup", "learning_rate.warmup={kind: gradual, epochs: 10, start: 0}")
    assert cut.value == "never reached: the run ends at lr 0.0796 after 200 steps"
    steps = row("warmup", "learning_rate.warmup={kind: gradual, steps: 200}")
    assert steps.value == "never reached: the run ends at lr 0.1995 after 200 steps"
    assert row("warmup", "learning_rate.warmup={kind: gradual, steps: 199}").value == "lr 0.2 after it"
    assert row("warmup", "learning_rate.warmup={kind: none, steps: 999}") is None


def test_decays_beyond_the_runs_end_are_said():
    some = row("decay", "learning_rate.decay={kind: step, epochs: [2, 4, 30]}")
    assert some.value == "lr 0.02 from step 100; never reached in a run of 4 epochs: epoch 4, 30"
    none = row("decay", "learning_rate.decay={kind: step, epochs: [30]}")
    assert none.value == "never reached in a run of 4 epochs: epoch 30"
    end = row("decay", "learning_rate.decay={kind: polynomial, end: 3, final: 0.1}")
    assert (end.formula, end.value) == ("polynomial, to 0.1 of the target at epoch 3", "lr 0.02 from step 150")
    beyond = row("decay", "learning_rate.decay={kind: cosine, end: 9}")
    assert beyond.value == "never reached in a run of 4 epochs: epoch 9"
    assert row("decay", "learning_rate.decay={kind: cosine}") is None
