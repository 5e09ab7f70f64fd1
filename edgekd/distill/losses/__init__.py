"""What a student can be compared with its teacher by; one file a family."""
