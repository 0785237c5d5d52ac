"""The progress of a migration: a bar on a terminal, a line for each step elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from feedsvc.backends.postgres.migrations.index_progress import BuildProgress
from feedsvc.backends.postgres.migrations.watch import MigrationWatch


class MigrationLines(MigrationWatch):
    """A line for each step, and for each phase of an index that takes over half a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""

    def waits(self, schema: str) -> None:
        """Write that another process is waited for."""
        self._write(f"waiting for another process that migrates {schema}")

    def begins(self, step: str) -> None:
        """Write the step."""
        self._phase = ""
        self._write(step)

    def progress(self, build: BuildProgress) -> None:
        """Write a phase once."""
        if build.phase != self._phase:
            self._phase = build.phase
            self._write(f"  {_described(build)}")

    def retried(self, sentence: str) -> None:
        """Write the reason."""
        self._write(f"  {sentence}")

    def _write(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class MigrationBar(MigrationLines):
    """A bar for the index that is being built, above it a line for each step."""

    def __init__(self, console: Console, progress: Progress) -> None:
        super().__init__(console)
        self._progress = progress
        self._task: TaskID | None = None

    def progress(self, build: BuildProgress) -> None:
        """Move the bar."""
        total = build.total or None
        if self._task is None:
            self._task = self._progress.add_task(_described(build), total=total)
        self._progress.update(
            self._task, completed=build.done, total=total, description=_described(build)
        )

    def ends(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


@contextmanager
def migration_screen() -> Iterator[MigrationWatch]:
    """The watch that suits standard output."""
    console = Console()
    if not console.is_terminal:
        yield MigrationLines(console)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield MigrationBar(console, progress)


def _described(build: BuildProgress) -> str:
    waits = f", waits for {build.blockers}" if build.blockers else ""
    return f"{build.phase}{waits}"
