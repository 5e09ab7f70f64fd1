"""Every specification: frozen pydantic models, checked before anything is loaded. No torch, no I/O."""
