"""Problems: unsuccessful responses, and the broken rules that they list (`model.problems`)."""

from geocast.model import problems
from geocast.model.problems import MAX_ERRORS, Problem, Violation


def test_problem_keeps_a_hundred_violations_and_counts_all():
    """A message may break tens of thousands of rules (HD14)."""
    violations = [Violation(problems.MISSING_FIELD, f"/{n}", "is missing") for n in range(MAX_ERRORS + 20)]
    problem = Problem.of([*violations, Violation(problems.STALE, "/sent", "is too old")])
    assert (problem.slug, problem.total) == ("missing-field", MAX_ERRORS + 21)
    assert problem.types == {problems.MISSING_FIELD, problems.STALE}
    body = problem.body()
    assert [each["pointer"] for each in body["errors"]] == [f"/{n}" for n in range(MAX_ERRORS)]
    assert body["errors_total"] == MAX_ERRORS + 21


def test_short_list_of_violations_has_no_total():
    """`errors_total` is there only if `errors` is incomplete."""
    problem = Problem.of([Violation(problems.STALE, "/sent", "is too old")])
    assert "errors_total" not in problem.body()
