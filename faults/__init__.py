"""The faults: Glacic while something fails, with real packets. `make faults`; not part of the wheel."""
