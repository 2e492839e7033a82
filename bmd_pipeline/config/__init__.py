"""Settings: one schema of frozen pydantic models; loading, overriding, costs and hashing."""
