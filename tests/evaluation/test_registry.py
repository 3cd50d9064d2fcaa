"""One decorated function is one metric: it is evaluated, recorded and described from that alone."""

import pytest
from subjects import make_subject

from utils.evaluation import registry
from utils.evaluation.estimates import Estimate, NoValue
from utils.evaluation.registry import METRICS, WHERE, describe, evaluate, metric, shared


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch):
    """What is registered here is forgotten afterwards."""
    monkeypatch.setattr(registry, "METRICS", {})


def test_kinds_of_points_and_variants_are_metrics_of_their_own(truth):
    @metric("{} thing", where=WHERE, variants={"one": "first", "two_b": "second"}, headline="two_b_noised")
    def thing(subject, variant, where):
        """The {} of
        all.

        How it is computed does not belong to the definition.
        """
        return Estimate(len(variant), None, 1)

    values = {name: estimate.value for name, estimate in evaluate(make_subject(truth, truth)).estimates.items()}
    assert values == {f"thing_{name}_{where}": n for name, n in (("one", 3), ("two_b", 5)) for where in WHERE}
    about = describe("thing_two_b_noised")
    assert (about.label, about.heading) == ("two b thing, noised", "two b thing")
    assert about.definition == f"The second of all; {WHERE['noised']}"
    assert [name for name, about in registry.METRICS.items() if about.headline] == ["thing_two_b_noised"]


def test_what_several_metrics_share_is_computed_once_and_what_has_no_value_is_left_out_with_the_reason(truth):
    asked = []

    @shared
    def part(subject, which):
        asked.append(which)
        if which == "none":
            raise NoValue("it has none")
        return Estimate(2.0, None, 1)

    @metric("first")
    def first(subject):
        """First."""
        with pytest.raises(NoValue):
            part(subject, "none")
        return part(subject, "some")

    @metric("second", unit="nats")
    def second(subject):
        """Second, one a component."""
        return [part(subject, "some"), part(subject, "some").scaled(3)]

    @metric("third", where=WHERE)
    def third(subject, where):
        """Third."""
        return part(subject, "none") if where == "noised" else 1 / 0

    found = evaluate(make_subject(truth, truth))
    assert asked == ["none", "some"]
    values = {name: estimate.value for name, estimate in found.estimates.items()}
    assert values == {"first": 2.0, "second_1": 2.0, "second_2": 6.0}
    assert found.skipped == {"third_noised": "it has none", "third_uniform": "division by zero"}
    assert describe("second_2").heading == "second, nats"  # each component has the metric's description
    assert describe("second_x") is None and describe("nothing_1") is None


def test_every_metric_says_what_it_is():
    labels = [about.label for about in METRICS.values()]
    assert len(set(labels)) == len(labels)
    for name, about in METRICS.items():
        assert about.name == name and about.label and about.source and about.definition, name
        assert not {"{", "}"} & set(about.label + about.definition), name
    share = METRICS["stray_fraction"]
    assert (share.unit, share.factor, share.heading) == ("fraction", 100, "strays, %")
    assert (METRICS["wasserstein_2_control"].factor, METRICS["wasserstein_2_control"].heading) == (1, "W2")
