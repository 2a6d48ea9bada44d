-- Valid clicks that no offer took (outcome `fallback` or `rejected`): gross - invalid - refused is what offers got.
ALTER TABLE stats_hourly ADD COLUMN refused_clicks bigint NOT NULL DEFAULT 0;

-- A cap that comes in the middle of a period is counted from the roll-ups and the changes.
CREATE INDEX stats_hourly_offer ON stats_hourly (offer_id, hour);
CREATE INDEX conversion_changes_booked ON conversion_changes USING brin (booked_hour) WITH (autosummarize = on);

-- What was had of capped offers (aff_id 0), and by capped partners in them. `period_end` is the first moment after.
-- NOT is_counted: to be counted from the rows before it is used again.
CREATE TABLE cap_usage (
    offer_id     int            NOT NULL,
    aff_id       int            NOT NULL,
    period       text           NOT NULL CHECK (period IN ('daily', 'weekly', 'monthly', 'total')),
    period_start timestamptz    NOT NULL,
    period_end   timestamptz    NOT NULL,
    clicks       bigint         NOT NULL DEFAULT 0,
    conversions  bigint         NOT NULL DEFAULT 0,
    payout       numeric(24, 6) NOT NULL DEFAULT 0,
    revenue      numeric(24, 6) NOT NULL DEFAULT 0,
    is_counted   boolean        NOT NULL DEFAULT false,
    PRIMARY KEY (offer_id, aff_id, period, period_start)
) WITH (fillfactor = 50);
