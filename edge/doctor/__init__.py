"""What `clickedge doctor` looks at: one short function a subject, each looks and changes nothing."""
