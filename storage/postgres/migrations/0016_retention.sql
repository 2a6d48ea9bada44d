-- What of conversions is taken away when it has been kept long enough, oldest first: without reading those that have none.
CREATE INDEX conversions_with_ip ON conversions (received_at) WHERE ip IS NOT NULL;
