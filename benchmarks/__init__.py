"""Compare the speed of the plugin with what people use today: ``python -m benchmarks``."""
