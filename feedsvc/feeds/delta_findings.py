"""Findings about datasets whose changes can't be followed, or not exactly."""

from collections.abc import Iterator, Mapping

from feedsvc.backends.postgres.pool import AnyConnection
from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.feed_state import FeedStates
from feedsvc.feeds.view_rules import ViewRules


async def delta_findings(
    connection: AnyConnection, datasets: Mapping[str, Dataset]
) -> list[Finding]:
    """Warnings of policies that are in the way of deltas, in a session of the service's login.

    Raises what asyncpg raises.
    """
    found, states = list[Finding](), FeedStates()
    for name, dataset in datasets.items():
        feed = await states.read_tolerantly(connection, dataset)
        if feed is None:
            continue
        if isinstance(feed.rules, ViewRules):
            found += _view_findings(dataset, feed.rules)
            continue
        if (fault := feed.rules.policy_fault(dataset)) is not None:
            found.append(Finding("warning", name, f"`since` is refused: {fault}"))
        elif feed.rules.is_undecided:
            what = (
                "deltas are resets where a row may have left a reader's sight: a policy can't be"
                " asked of former rows, for it names the row as a whole, a system column, a"
                " volatile function, or a column that the triggers do not log yet"
            )
            found.append(Finding("warning", name, what))
    return found


def _view_findings(dataset: Dataset, rules: ViewRules) -> Iterator[Finding]:
    """Mistakes of what a view's key is said to come from, and what is in the way of its deltas."""
    if not dataset.key_from:
        return
    place = f"{dataset.name}.key_from"
    if (fault := rules.source_fault(dataset)) is not None:
        yield Finding(
            "error", place, fault.removeprefix(f"[{place}]: ").removeprefix(f"[{place}] ")
        )
    elif (fault := rules.fault(dataset)) is not None:
        yield Finding("warning", dataset.name, f"`since` is refused: {fault}")
    elif (doubt := rules.doubt or rules.half_doubt) is not None:
        what = f"deltas are resets where a row may have left a reader's sight: {doubt}"
        yield Finding("warning", dataset.name, what)
    if named := rules.watched(dataset):
        what = f"a change of {', '.join(named)} is a reset, for key_from does not name it"
        yield Finding("warning", place, f"{what}; say in watch whose rows it shows in")
