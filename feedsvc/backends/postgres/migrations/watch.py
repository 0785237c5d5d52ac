"""Reports of a migration while it runs."""

from feedsvc.backends.postgres.migrations.index_progress import BuildProgress


class MigrationWatch:
    """Takes reports of a migration and does nothing with them; a command shows them."""

    def waits(self, schema: str) -> None:
        """Another process migrates this schema, and is waited for."""

    def begins(self, step: str) -> None:
        """A step begins: `build 0007_contracts_status`."""

    def progress(self, build: BuildProgress) -> None:
        """An index is being built, and this far."""

    def retried(self, sentence: str) -> None:
        """A step lost its lock, and is tried again."""

    def ends(self) -> None:
        """The step is complete and recorded."""
