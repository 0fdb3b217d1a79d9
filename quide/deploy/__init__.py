"""Networks in real low-bit arithmetic, a backend a module; each needs the extra ``deploy``."""
