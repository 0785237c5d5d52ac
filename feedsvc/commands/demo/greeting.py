"""The text and the ready file of `feedsvc demo`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from feedsvc.commands.demo.world import World


def greeting(url: str, world: World, tokens: Mapping[str, str]) -> str:
    """Lines to paste, and a token for each principal. No line is broken: each pastes whole."""
    who = {
        "member": f"a supplier's office ({world.tenant})",
        "other_member": f"another supplier ({world.other_tenant})",
        "couple": f"one couple, client {world.client} of {world.tenant}",
        "admin": f"an administrator of {world.tenant}, who may operate the service too",
    }
    lines = [f"\nfeedsvc serves {url}\n", "A page, a spreadsheet, a phone, a dashboard:\n"]
    feeds = {
        "json": f"{url}/v1/feeds/clients?limit=2",
        "csv": f"{url}/v1/feeds/budgets?format=csv&limit=5",
        "ndjson": f"{url}/v1/feeds/clients?format=ndjson&columns=id,partner_one,phone&limit=5",
        "sse": f"{url}/v1/feeds/analytics?format=sse&limit=3",
    }
    bearer = f"-H 'Authorization: Bearer {tokens['member']}'"
    lines += [f"  curl -sS -N {bearer} '{feed}'\n" for feed in feeds.values()]
    lines.append("Tokens:\n")
    lines += [f"  {name}: {who[name]}\n  {token}\n" for name, token in tokens.items()]
    lines.append("Ctrl-C stops everything.\n")
    return "\n".join(lines)


def write_ready_file(
    path: Path, url: str, world: World, redis_url: str | None, tokens: Mapping[str, str]
) -> None:
    """Write the ready file, one JSON object, whole or not at all."""
    ready = {
        "url": url,
        "database_url": world.service_url,
        "admin_database_url": world.admin_url,
        "redis_url": redis_url,
        "pid": os.getpid(),
        "tokens": dict(tokens),
    }
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(ready, indent=2) + "\n")
    draft.replace(path)
