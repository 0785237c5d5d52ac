"""The rate limit's arithmetic, held against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from feedsvc.access.bucket import Bucket, Policy

STEPS = st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200)


@given(st.integers(1, 50), st.floats(0.5, 100), STEPS)
def test_no_span_of_time_sees_more_than_the_burst_and_what_the_rate_adds(
    burst: int, per_second: float, pauses: list[float]
) -> None:
    policy, bucket, now = Policy("requests", burst, per_second), Bucket(), 1_000.0
    admitted: list[float] = []
    for pause in pauses:
        now += pause
        if bucket.excess(policy.seconds(1), policy, now) <= 0:
            bucket.add(policy.seconds(1), now)
            admitted.append(now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + (admitted[last] - start) * per_second + 1e-3


@given(st.integers(1, 1_000), st.floats(0.1, 10_000))
def test_a_burst_is_exactly_as_large_as_it_says(burst: int, per_second: float) -> None:
    policy, bucket = Policy("requests", burst, per_second), Bucket()
    for used in range(burst):
        left = int(policy.standing(bucket.debt(5.0))["RateLimit"].split(";")[1][2:])
        assert left == burst - used
        assert bucket.excess(policy.seconds(1), policy, 5.0) <= 0
        bucket.add(policy.seconds(1), 5.0)
    excess = bucket.excess(policy.seconds(1), policy, 5.0)
    assert excess > 0
    assert bucket.excess(policy.seconds(1), policy, 5.0 + excess + 1e-6) <= 0


def test_the_usage_of_others_counts_beside_what_is_unreported() -> None:
    policy, bucket = Policy("requests", 100, 50), Bucket()

    def owed() -> int:
        return round(bucket.debt(0.0) / policy.seconds(1))

    bucket.add(policy.seconds(10), 0.0)
    reported = bucket.begin_report(0.0)
    assert reported == policy.seconds(10)
    bucket.add(policy.seconds(5), 0.0)  # while the answer is on its way
    bucket.confirm_report(reported, policy.seconds(40), 0.0)  # our 10 and 30 of the others
    assert owed() == 45
    assert round(bucket.begin_report(0.0) / policy.seconds(1)) == 5


def test_of_two_messages_the_later_may_arrive_first() -> None:
    policy, bucket = Policy("requests", 100, 50), Bucket()
    bucket.add(policy.seconds(10), 0.0)
    first = bucket.begin_report(0.0)
    bucket.add(policy.seconds(1), 0.0)
    second = bucket.begin_report(0.0)
    bucket.confirm_report(second, policy.seconds(1), 0.0)  # the 10 are not there yet
    assert round(bucket.debt(0.0) / policy.seconds(1)) == 11
    bucket.confirm_report(first, policy.seconds(11), 0.0)
    assert round(bucket.debt(0.0) / policy.seconds(1)) == 11


def test_a_report_that_did_not_arrive_is_sent_again() -> None:
    bucket = Bucket()
    bucket.add(1.0, 0.0)
    bucket.retract_report(bucket.begin_report(0.0))
    assert bucket.begin_report(0.0) == 1.0


def test_what_was_paid_off_is_not_reported() -> None:
    bucket = Bucket()
    bucket.add(1.0, 0.0)
    assert bucket.begin_report(0.75) == 0.25
    assert bucket.begin_report(0.75) == 0.0
