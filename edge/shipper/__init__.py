"""The shipper: what a node's journals hold goes to the stream."""
