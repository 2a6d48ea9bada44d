-- Conversions that were approved and are not any more, in the hour in which they were booked.
ALTER TABLE stats_hourly ADD COLUMN reversed bigint NOT NULL DEFAULT 0;
UPDATE stats_hourly SET reversed = booked.reversed
FROM (
    SELECT booked_hour, node_id, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country,
           device_type, currency, sum((status_after = 'reversed')::int - (status_before = 'reversed')::int) AS reversed
    FROM conversion_changes JOIN conversions USING (conversion_id)
    WHERE 'reversed' IN (status_before, status_after) GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
) AS booked
WHERE booked.reversed <> 0 AND stats_hourly.hour = booked_hour
  AND (stats_hourly.node_id, stats_hourly.advertiser_id, stats_hourly.offer_id, stats_hourly.aff_id, stats_hourly.goal_id,
       stats_hourly.landing_page_id, stats_hourly.creative_id, stats_hourly.country, stats_hourly.device_type,
       stats_hourly.currency)
    = (booked.node_id, booked.advertiser_id, booked.offer_id, booked.aff_id, booked.goal_id, booked.landing_page_id,
       booked.creative_id, booked.country, booked.device_type, booked.currency);

-- Coarser sums of stats_hourly, for reports of many days. A grain keeps some dimensions, the others are 0 and '';
-- `hour` is the first hour of its day or, in grains of hours, the hour. What is in here: `stats_rollup_state`.
CREATE TABLE stats_rollups (
    grain           smallint       NOT NULL,
    hour            timestamptz    NOT NULL,
    advertiser_id   int            NOT NULL,
    offer_id        int            NOT NULL,
    aff_id          int            NOT NULL,
    goal_id         int            NOT NULL,
    landing_page_id int            NOT NULL,
    creative_id     int            NOT NULL,
    country         text           NOT NULL,
    device_type     text           NOT NULL,
    currency        text           NOT NULL,
    impressions     bigint         NOT NULL,
    gross_clicks    bigint         NOT NULL,
    unique_clicks   bigint         NOT NULL,
    invalid_clicks  bigint         NOT NULL,
    refused_clicks  bigint         NOT NULL,
    conversions     bigint         NOT NULL,
    pending         bigint         NOT NULL,
    rejected        bigint         NOT NULL,
    reversed        bigint         NOT NULL,
    amount          numeric(24, 6) NOT NULL,
    payout          numeric(24, 6) NOT NULL,
    revenue         numeric(24, 6) NOT NULL,
    cost            numeric(24, 6) NOT NULL,
    PRIMARY KEY (grain, hour, advertiser_id, offer_id, aff_id, goal_id, landing_page_id, creative_id, country,
                 device_type, currency)
) PARTITION BY LIST (grain);
CREATE TABLE stats_rollups_day_offer PARTITION OF stats_rollups FOR VALUES IN (1) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_country_device PARTITION OF stats_rollups FOR VALUES IN (2) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_offer_device PARTITION OF stats_rollups FOR VALUES IN (3) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_partner PARTITION OF stats_rollups FOR VALUES IN (4) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_offer_page PARTITION OF stats_rollups FOR VALUES IN (5) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_partner_device PARTITION OF stats_rollups FOR VALUES IN (6) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_offer_country PARTITION OF stats_rollups FOR VALUES IN (7) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_offer_partner PARTITION OF stats_rollups FOR VALUES IN (8) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_day_partner_country PARTITION OF stats_rollups FOR VALUES IN (9) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_hour_offer PARTITION OF stats_rollups FOR VALUES IN (10) WITH (fillfactor = 80);
CREATE TABLE stats_rollups_hour_country_device PARTITION OF stats_rollups FOR VALUES IN (11) WITH (fillfactor = 80);

-- One row at most: all hours before `through` are in stats_rollups, in days of `timezone`, in the grains that `layout`
-- names. No row: nothing is.
CREATE TABLE stats_rollup_state (
    is_only  boolean     PRIMARY KEY DEFAULT true CHECK (is_only),
    through  timestamptz NOT NULL,
    timezone text        NOT NULL,
    layout   text        NOT NULL
);

-- What the clicks of a finished day (of UTC) add up to by each value of one dimension, such as utm_campaign: instead of
-- reading them all. `dimension`: storage/postgres/click_values.py.
CREATE TABLE click_values (
    day            date           NOT NULL,
    dimension      smallint       NOT NULL,
    value          text           NOT NULL,
    currency       text           NOT NULL,
    gross_clicks   int            NOT NULL,
    unique_clicks  int            NOT NULL,
    invalid_clicks int            NOT NULL,
    refused_clicks int            NOT NULL,
    payout         numeric(24, 6) NOT NULL,
    revenue        numeric(24, 6) NOT NULL,
    cost           numeric(24, 6) NOT NULL
);
CREATE INDEX click_values_day ON click_values (dimension, day);

-- Only a `summed` day may be read from click_values; of too many values the clicks themselves are.
CREATE TABLE click_value_days (
    day       date     NOT NULL,
    dimension smallint NOT NULL,
    state     text     NOT NULL CHECK (state IN ('summing', 'summed', 'too many')),
    PRIMARY KEY (day, dimension)
);

-- Clicks that have conversions, close together: a report by sub id need not look for each among all clicks. A click never
-- changes, so a copy is as good; what is not copied yet is looked for.
CREATE TABLE converted_clicks AS
    SELECT click_id, offer_id, aff_id, landing_page_id, creative_id, alias, source, aff_sub1, aff_sub2, aff_sub3, aff_sub4,
           aff_sub5, utm_source, utm_medium, utm_campaign, utm_content, utm_term, country, region, city, device_type, os,
           browser, language, referrer, extras, first_click_id, contact_id, clicked_at
    FROM clicks WITH NO DATA;
ALTER TABLE converted_clicks ADD PRIMARY KEY (click_id);
