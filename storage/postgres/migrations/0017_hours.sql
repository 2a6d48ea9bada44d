-- Whole hours: what a report by hour, or by day alone, needs to read of a month is 720 rows a currency.
CREATE TABLE stats_rollups_hour PARTITION OF stats_rollups FOR VALUES IN (12) WITH (fillfactor = 80);
