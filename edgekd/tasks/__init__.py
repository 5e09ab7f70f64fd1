"""Tasks: encoding, targets, answers and metrics, one file a task."""
