"""Fuzzing: whatever comes from outside is read, or refused in words; `make fuzz` tries for a while, by coverage."""
