"""The keys that a cohort's state shows, of feeds on whose rows other tables decide.

A write to a table behind a policy changes sight without touching a row. Which rows came and went is
the difference of the keys before and after, so the keys before are kept, where they are few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from feedsvc.feeds.key_set import KeySet


@dataclass(frozen=True, slots=True)
class FeedKeys:
    """The keys of one feed behind a step: all of them, or what it has changed.

    Both are None where they are not kept: `is_needed` tells whether they should be.
    """

    is_needed: bool = False
    all: KeySet | None = None
    changed: Mapping[str, bool] | None = None


@dataclass(slots=True)
class Membership:
    """The keys of the feeds of one cohort, None of those that need none or have too many."""

    sets: list[KeySet | None] = field(default_factory=list)
    most: int = 0
    """The number of keys of a further feed that may be kept."""
    is_given_up: bool = False
    """True where a feed has more rows than are kept; it is not asked for them again."""

    def __len__(self) -> int:
        """The number of keys."""
        return sum(len(keys) for keys in self.sets if keys is not None)

    def of(self, place: int) -> KeySet | None:
        """The keys of the feed at this place, as far as they are known."""
        return self.sets[place] if place < len(self.sets) else None

    def take(self, step: Sequence[FeedKeys]) -> None:
        """Take the keys behind a step."""
        sets = [self.of(place) for place in range(len(step))]
        for place, (keys, new) in enumerate(zip(sets, step, strict=True)):
            if new.all is not None:
                sets[place] = new.all
            elif keys is not None and new.changed is not None:
                keys.note(new.changed)
            self.is_given_up |= new.is_needed and sets[place] is None
        self.sets = [None if keys and len(keys) > keys.most else keys for keys in sets]
