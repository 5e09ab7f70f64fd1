"""Whether the bundle holds what was promised: here, later, and on another device."""
