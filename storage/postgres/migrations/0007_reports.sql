-- What reports need beside clicks and conversions: what was spent and sent, who the contacts are, who may look.

-- What a day's advertising cost and how many messages were sent. `feed`: the file or system that says so; what it says
-- of a day again replaces what it said before.
CREATE TABLE costs (
    day         date           NOT NULL,
    offer_id    int            NOT NULL DEFAULT 0,
    aff_id      int            NOT NULL DEFAULT 0,
    creative_id int            NOT NULL DEFAULT 0,
    list        text           NOT NULL DEFAULT '',
    currency    text           NOT NULL DEFAULT '',
    amount      numeric(18, 6) NOT NULL DEFAULT 0,
    sends       bigint         NOT NULL DEFAULT 0,
    feed        text           NOT NULL DEFAULT '',
    PRIMARY KEY (day, offer_id, aff_id, creative_id, list, currency, feed)
);

-- People who receive messages, imported or first seen in a click. A deleted one keeps its row: it stays in the totals.
CREATE TABLE contacts (
    contact_id     text        PRIMARY KEY CHECK (length(contact_id) <= 256),
    list           text        NOT NULL DEFAULT '',
    signed_up_at   timestamptz,
    first_seen_at  timestamptz,
    first_click_id uuid,
    deleted_at     timestamptz,
    extras         jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX contacts_signed_up_at ON contacts (signed_up_at);

-- Only the hash of a key is kept. advertiser_id, aff_id: whose figures a key of that scope sees.
CREATE TABLE api_keys (
    key_id        int         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text        NOT NULL,
    key_hash      bytea       NOT NULL UNIQUE,
    scope         text        NOT NULL CHECK (scope IN ('admin', 'reports', 'advertiser', 'partner')),
    advertiser_id int         NOT NULL DEFAULT 0,
    aff_id        int         NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text        NOT NULL DEFAULT '',
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    CHECK ((scope = 'advertiser') = (advertiser_id > 0) AND (scope = 'partner') = (aff_id > 0))
);
