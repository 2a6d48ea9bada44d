"""The postback that an outbox row would become, for whoever wants to see it before it is sent."""

import time
from datetime import UTC, datetime

from edge.tracking.catalog import Catalog
from edge.tracking.macros import compile_template
from edge.tracking.postback_values import Facts, value_of
from edge.tracking.postbacks import without_secrets
from storage.postgres.outbox import Due, OutboxRow
from storage.postgres.postback_facts import PostbackFacts


def preview(row: OutboxRow, facts: PostbackFacts, catalog: Catalog) -> str:
    """The address with its macros filled in, secrets hidden."""
    shared = row._asdict()
    own = {"outbox_id": 0, "created_at": datetime.fromtimestamp(time.time(), UTC), "attempts": 1}
    own["conversion_id"] = facts.conversion["conversion_id"]
    due = Due._make(own[name] if name in own else shared[name] for name in Due._fields)
    told = Facts(due, facts.conversion, facts.click or {}, catalog)
    return without_secrets(compile_template(row.url).expand(lambda name: value_of(told, name)))
