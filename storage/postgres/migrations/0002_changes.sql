-- What changes a conversion after its first decision: who caused it, what it was worth afterwards, closed months, tiers.

-- The tier that priced it: its `from_conversions`; 0: none.
ALTER TABLE conversions ADD COLUMN tier int NOT NULL DEFAULT 0;

-- A conversion that changes an earlier one instead of being one of its own is named here, with what it sent.
ALTER TABLE conversion_changes
    ADD COLUMN cause_id      uuid,
    ADD COLUMN cause_params  jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN amount_after  numeric(18, 6),
    ADD COLUMN payout_after  numeric(18, 6),
    ADD COLUMN revenue_after numeric(18, 6);
CREATE UNIQUE INDEX conversion_changes_cause_id ON conversion_changes (cause_id) WHERE cause_id IS NOT NULL;

-- A closed month's hours take no change any more. The instants are those of EDGE_TIMEZONE when it was closed.
CREATE TABLE closed_months (
    month     date        PRIMARY KEY CHECK (extract(day FROM month) = 1),
    starts_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT now(),
    actor     text        NOT NULL DEFAULT ''
);

-- A partner's approved conversions of an offer with tiers, in a month of EDGE_TIMEZONE: the sum of conversions_delta.
CREATE TABLE tier_counts (
    offer_id    int  NOT NULL,
    aff_id      int  NOT NULL,
    month       date NOT NULL,
    conversions int  NOT NULL,
    PRIMARY KEY (offer_id, aff_id, month)
);

-- Settings of the drains that commands must share with them, such as `timezone`.
CREATE TABLE installation (
    name  text PRIMARY KEY,
    value text NOT NULL
);
