-- Names and columns are a contract (users' own SQL relies on them): later migrations add, they do not rename.
-- 0 and '' stand for "none" in ids and strings, so that grouping and unique keys never meet a NULL.

CREATE TABLE clicks (
    click_id         uuid           NOT NULL,
    clicked_at       timestamptz    NOT NULL,
    node_id          int            NOT NULL,
    offer_id         int            NOT NULL,
    aff_id           int            NOT NULL,
    landing_page_id  int            NOT NULL DEFAULT 0,
    creative_id      int            NOT NULL DEFAULT 0,
    alias            text           NOT NULL DEFAULT '',
    source           text           NOT NULL DEFAULT '',
    aff_sub1         text           NOT NULL DEFAULT '',
    aff_sub2         text           NOT NULL DEFAULT '',
    aff_sub3         text           NOT NULL DEFAULT '',
    aff_sub4         text           NOT NULL DEFAULT '',
    aff_sub5         text           NOT NULL DEFAULT '',
    aff_click_id     text           NOT NULL DEFAULT '',
    utm_source       text           NOT NULL DEFAULT '',
    utm_medium       text           NOT NULL DEFAULT '',
    utm_campaign     text           NOT NULL DEFAULT '',
    utm_content      text           NOT NULL DEFAULT '',
    utm_term         text           NOT NULL DEFAULT '',
    contact_id       text           NOT NULL DEFAULT '',
    ip               inet,
    country          text           NOT NULL DEFAULT '',
    region           text           NOT NULL DEFAULT '',
    city             text           NOT NULL DEFAULT '',
    user_agent       text           NOT NULL DEFAULT '',
    device_type      text           NOT NULL DEFAULT '',
    device_brand     text           NOT NULL DEFAULT '',
    os               text           NOT NULL DEFAULT '',
    browser          text           NOT NULL DEFAULT '',
    language         text           NOT NULL DEFAULT '',
    referrer         text           NOT NULL DEFAULT '',
    visitor          uuid,
    cost             numeric(18, 6) NOT NULL DEFAULT 0,
    payout           numeric(18, 6) NOT NULL DEFAULT 0,
    revenue          numeric(18, 6) NOT NULL DEFAULT 0,
    currency         text           NOT NULL DEFAULT '',
    outcome          text           NOT NULL CHECK (outcome IN ('redirected', 'fallback', 'rejected', 'recorded')),
    reason           text           NOT NULL DEFAULT '',
    flags            text[]         NOT NULL DEFAULT '{}',
    extras           jsonb          NOT NULL DEFAULT '{}',
    catalog_revision bigint         NOT NULL DEFAULT 0,
    PRIMARY KEY (click_id)
) PARTITION BY RANGE (click_id);

-- An impression's id is minted like a click's and named like it, so that one query serves both tables.
CREATE TABLE impressions (LIKE clicks INCLUDING ALL) PARTITION BY RANGE (click_id);

CREATE TABLE conversions (
    conversion_id        uuid           PRIMARY KEY,
    click_id             uuid,
    transaction_id       text           NOT NULL DEFAULT '',
    node_id              int            NOT NULL DEFAULT 0,
    advertiser_id        int            NOT NULL DEFAULT 0,
    offer_id             int            NOT NULL DEFAULT 0,
    aff_id               int            NOT NULL DEFAULT 0,
    goal_id              int            NOT NULL DEFAULT 0,
    landing_page_id      int            NOT NULL DEFAULT 0,
    creative_id          int            NOT NULL DEFAULT 0,
    touched_at           timestamptz,
    converted_at         timestamptz    NOT NULL,
    received_at          timestamptz    NOT NULL,
    amount               numeric(18, 6) NOT NULL DEFAULT 0,
    currency             text           NOT NULL DEFAULT '',
    revenue              numeric(18, 6) NOT NULL DEFAULT 0,
    payout               numeric(18, 6) NOT NULL DEFAULT 0,
    status               text           NOT NULL CHECK (status IN ('approved', 'pending', 'rejected', 'reversed')),
    reason               text           NOT NULL DEFAULT '',
    status_code          int            NOT NULL DEFAULT 0,
    adv_sub1             text           NOT NULL DEFAULT '',
    adv_sub2             text           NOT NULL DEFAULT '',
    adv_sub3             text           NOT NULL DEFAULT '',
    adv_sub4             text           NOT NULL DEFAULT '',
    adv_sub5             text           NOT NULL DEFAULT '',
    conversion_unique_id text           NOT NULL DEFAULT '',
    promo_code           text           NOT NULL DEFAULT '',
    via                  text           NOT NULL,
    ip                   inet,
    country              text           NOT NULL DEFAULT '',
    device_type          text           NOT NULL DEFAULT '',
    extras               jsonb          NOT NULL DEFAULT '{}',
    catalog_revision     bigint         NOT NULL DEFAULT 0
);
CREATE INDEX conversions_click_id ON conversions (click_id) WHERE click_id IS NOT NULL;
CREATE INDEX conversions_received_at ON conversions (received_at);
CREATE INDEX conversions_offer_converted_at ON conversions (offer_id, converted_at);

CREATE TABLE conversion_keys (
    key           text PRIMARY KEY,
    conversion_id uuid NOT NULL
);
CREATE INDEX conversion_keys_conversion_id ON conversion_keys (conversion_id);

-- Every change of a conversion, the first decision too: the deltas of one row are what it added to stats_hourly.
CREATE TABLE conversion_changes (
    change_id         bigint         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversion_id     uuid           NOT NULL,
    changed_at        timestamptz    NOT NULL DEFAULT now(),
    booked_hour       timestamptz    NOT NULL,
    actor             text           NOT NULL DEFAULT '',
    kind              text           NOT NULL
                      CHECK (kind IN ('decided', 'approved', 'rejected', 'adjusted', 'reversed')),
    status_before     text           NOT NULL DEFAULT '',
    status_after      text           NOT NULL,
    reason            text           NOT NULL DEFAULT '',
    amount_delta      numeric(18, 6) NOT NULL DEFAULT 0,
    payout_delta      numeric(18, 6) NOT NULL DEFAULT 0,
    revenue_delta     numeric(18, 6) NOT NULL DEFAULT 0,
    conversions_delta int            NOT NULL DEFAULT 0,
    pending_delta     int            NOT NULL DEFAULT 0,
    rejected_delta    int            NOT NULL DEFAULT 0,
    note              text           NOT NULL DEFAULT ''
);
CREATE INDEX conversion_changes_conversion_id ON conversion_changes (conversion_id);

-- Conversions whose click has not arrived; `event` is the journal's payload, as it was. `decided_at`: when the wait
-- ended with unknown_click; a click that comes later still changes that.
CREATE TABLE conversions_waiting (
    conversion_id uuid        PRIMARY KEY,
    click_id      uuid        NOT NULL,
    node_id       int         NOT NULL,
    worker_id     int         NOT NULL,
    id_ms         bigint      NOT NULL,
    received_at   timestamptz NOT NULL,
    deadline      timestamptz NOT NULL,
    event         bytea       NOT NULL,
    journal_id    uuid        NOT NULL,
    decided_at    timestamptz
);
CREATE INDEX conversions_waiting_click_id ON conversions_waiting (click_id);
CREATE INDEX conversions_waiting_minted_by ON conversions_waiting (node_id, worker_id, id_ms)
    WHERE decided_at IS NULL;
CREATE INDEX conversions_waiting_decided ON conversions_waiting (decided_at) WHERE decided_at IS NOT NULL;
CREATE INDEX conversions_waiting_undecided ON conversions_waiting (deadline) WHERE decided_at IS NULL;

-- The node is in the key so that drains of different nodes never wait for each other's rows; the free space of
-- each page lets the current hour's rows be updated in place.
CREATE TABLE stats_hourly (
    hour            timestamptz    NOT NULL,
    node_id         int            NOT NULL,
    advertiser_id   int            NOT NULL DEFAULT 0,
    offer_id        int            NOT NULL DEFAULT 0,
    aff_id          int            NOT NULL DEFAULT 0,
    goal_id         int            NOT NULL DEFAULT 0,
    landing_page_id int            NOT NULL DEFAULT 0,
    creative_id     int            NOT NULL DEFAULT 0,
    country         text           NOT NULL DEFAULT '',
    device_type     text           NOT NULL DEFAULT '',
    currency        text           NOT NULL DEFAULT '',
    impressions     bigint         NOT NULL DEFAULT 0,
    gross_clicks    bigint         NOT NULL DEFAULT 0,
    unique_clicks   bigint         NOT NULL DEFAULT 0,
    invalid_clicks  bigint         NOT NULL DEFAULT 0,
    conversions     bigint         NOT NULL DEFAULT 0,
    pending         bigint         NOT NULL DEFAULT 0,
    rejected        bigint         NOT NULL DEFAULT 0,
    amount          numeric(24, 6) NOT NULL DEFAULT 0,
    payout          numeric(24, 6) NOT NULL DEFAULT 0,
    revenue         numeric(24, 6) NOT NULL DEFAULT 0,
    cost            numeric(24, 6) NOT NULL DEFAULT 0,
    PRIMARY KEY (hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id,
                 country, device_type, currency)
) WITH (fillfactor = 70);

-- How far each worker process's journal is stored; the compare-and-set on it makes "exactly once".
CREATE TABLE journal_positions (
    journal_id   uuid        PRIMARY KEY,
    node_id      int         NOT NULL,
    worker_id    int         NOT NULL,
    segment      int         NOT NULL,
    byte_offset  bigint      NOT NULL,
    watermark_ms bigint      NOT NULL DEFAULT 0,
    finished_at  timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE INDEX journal_positions_minted_by ON journal_positions (node_id, worker_id);

CREATE TABLE quarantine (
    journal_id     uuid        NOT NULL,
    segment        int         NOT NULL,
    byte_offset    bigint      NOT NULL,
    error          text        NOT NULL,
    raw            bytea       NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_id, segment, byte_offset)
);

CREATE TABLE catalog_revisions (
    revision    bigint      PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now(),
    actor       text        NOT NULL DEFAULT '',
    note        text        NOT NULL DEFAULT '',
    source_hash text        NOT NULL DEFAULT ''
);

-- An item as it was from one revision until before another; NULL: as it still is.
CREATE TABLE catalog_items (
    kind          text   NOT NULL,
    id            text   NOT NULL,
    revision_from bigint NOT NULL,
    revision_to   bigint,
    body          bytea  NOT NULL,
    PRIMARY KEY (kind, id, revision_from)
);
CREATE UNIQUE INDEX catalog_items_current ON catalog_items (kind, id) WHERE revision_to IS NULL;
CREATE INDEX catalog_items_revision_from ON catalog_items (revision_from);
CREATE INDEX catalog_items_revision_to ON catalog_items (revision_to) WHERE revision_to IS NOT NULL;

CREATE TABLE nodes (
    node_id       int         PRIMARY KEY CHECK (node_id BETWEEN 0 AND 1023),
    data_dir_id   uuid        NOT NULL,
    secret_prints text[]      NOT NULL,
    leased_at     timestamptz NOT NULL DEFAULT now()
);

-- Ids of open clicks brought over from another network.
CREATE TABLE external_ids (
    transaction_id text PRIMARY KEY,
    click_id       uuid NOT NULL
);
