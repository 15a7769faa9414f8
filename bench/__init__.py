"""The bench: Glacic beside what people use today, on the same packets. `make bench`; not part of the wheel."""
