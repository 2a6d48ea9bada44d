-- What a closed month's statements say, kept when it is closed: nothing that comes later changes it.

-- The catalog whose names they show, and the time zone; NULL until the lines are kept.
ALTER TABLE closed_months ADD COLUMN catalog_revision bigint, ADD COLUMN timezone text NOT NULL DEFAULT '';

-- A statement's line is of the month in whose hours it is booked (`booked_in`), and of conversions decided in `made_in`.
-- made_in earlier: changes of a closed month's conversions, booked in this one. booked_in earlier: what came into the hours
-- of a month after it was closed. All lines booked in a month add up to what stats_hourly has of it, but for the latest.
CREATE TABLE statement_lines (
    stated_in          date           NOT NULL REFERENCES closed_months (month) ON DELETE CASCADE,
    booked_in          date           NOT NULL,
    made_in            date           NOT NULL,
    advertiser_id      int            NOT NULL,
    aff_id             int            NOT NULL,
    offer_id           int            NOT NULL,
    goal_id            int            NOT NULL,
    currency           text           NOT NULL,
    impressions        bigint         NOT NULL,
    clicks             bigint         NOT NULL, -- gross - invalid
    conversions        bigint         NOT NULL,
    amount             numeric(24, 6) NOT NULL,
    payout             numeric(24, 6) NOT NULL,
    revenue            numeric(24, 6) NOT NULL,
    conversion_payout  numeric(24, 6) NOT NULL, -- the rest of payout is of clicks and impressions
    conversion_revenue numeric(24, 6) NOT NULL,
    PRIMARY KEY (stated_in, aff_id, advertiser_id, offer_id, goal_id, currency, booked_in, made_in)
);
CREATE INDEX statement_lines_booked_in ON statement_lines (booked_in);
