"""The console: pages for people on the admin port, rendered here, with little JavaScript.

A page is one module and one template:

* `edge/admin/console/<name>.py` has `PAGE`, a `page.Page`: its path, its title, the group of the navigation that it
  stands in, its icon (`templates/icons.html`), the letter that opens it after `g`, the scopes that may see it, and its
  routes. A handler is `async def show(visit: Visit) -> web.StreamResponse`: it asks storage for what it shows, and ends in
  `visit.render("<name>.html", …)`. `visit.caller` says who looks; what is not theirs is `raise not_found("offer")`.
* `edge/admin/console/templates/<name>.html` extends `base.html` and fills the blocks `title`, `actions` and `content`.
  Everything is escaped. No inline script or style: the policy in protection.py forbids both.
* List it in `PAGES` below: that is the navigation's order, and what the browser tests walk through.

A form that changes something has `{{ form_token() }}` in it (from `parts.html`); without it the POST is refused. htmx sends
the token by itself. A part of a page that htmx replaces is a template of its own, included by the page's.
"""

from collections.abc import Sequence

from edge.admin.console import (
    catalog_items,
    clicks,
    cohorts,
    contacts,
    conversions,
    exports,
    health,
    imports,
    key_page,
    links,
    overview,
    postbacks,
    reports,
    statements,
)
from edge.admin.console.app import Console
from edge.admin.console.page import Page

PAGES: Sequence[Page] = (
    overview.PAGE,
    reports.PAGE,
    clicks.PAGE,
    conversions.PAGE,
    contacts.PAGE,
    cohorts.PAGE,
    *catalog_items.PAGES,
    links.PAGE,
    postbacks.PAGE,
    statements.PAGE,
    exports.PAGE,
    imports.PAGE,
    key_page.PAGE,
    health.PAGE,
)

__all__ = ["PAGES", "Console"]
