"""How fast the plugin is, measured beside what people use today: ``python -m benchmarks``."""
