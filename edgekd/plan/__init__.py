"""Planning: what a teacher can be cut to, what it would cost on the device, and which cut to take."""
