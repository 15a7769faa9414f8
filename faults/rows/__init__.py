"""One module for each fault: what was promised, how it is made, and what was measured."""
