"""The progress of a migration, on a terminal and elsewhere."""

import io

from rich.console import Console
from rich.progress import Progress

from feedsvc.backends.postgres.migrations.index_progress import BuildProgress
from feedsvc.commands.migrate_screen import MigrationBar, MigrationLines


def test_elsewhere_each_phase_is_a_line_once() -> None:
    out = io.StringIO()
    lines = MigrationLines(Console(file=out, width=40))
    lines.waits("wedding")
    lines.begins("apply 0007_a_name_that_is_longer_than_the_console_is_wide")
    for done in (1, 2):
        lines.progress(BuildProgress("building index: scanning table", done, 9, None))
    lines.progress(BuildProgress("waiting for old snapshots", 0, 1, "4711, 4712"))
    lines.retried("try 1 of 8: [locked]")
    lines.ends()
    assert out.getvalue().splitlines() == [
        "waiting for another process that migrates wedding",
        "apply 0007_a_name_that_is_longer_than_the_console_is_wide",
        "  building index: scanning table",
        "  waiting for old snapshots, waits for 4711, 4712",
        "  try 1 of 8: [locked]",
    ]


def test_on_a_terminal_a_bar_moves_and_goes() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(console=console, auto_refresh=False) as progress:
        bar = MigrationBar(console, progress)
        bar.begins("apply 0007_name")
        bar.progress(BuildProgress("building index: scanning table", 3, 12, None))
        bar.progress(BuildProgress("building index: sorting", 0, 0, None))
        bar.progress(BuildProgress("building index: loading tuples", 6, 12, None))
        assert [task.percentage for task in progress.tasks] == [50.0]
        bar.ends()
        assert progress.tasks == []
