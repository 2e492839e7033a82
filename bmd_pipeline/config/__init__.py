"""Settings: frozen pydantic models, one module per stage; loading, merging, overriding and hashing."""
