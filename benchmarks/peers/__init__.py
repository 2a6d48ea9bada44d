"""ClickEdge side by side with other servers, on the same core, under the same client, in the same run."""
