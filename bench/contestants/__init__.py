"""What Glacic is measured beside, and Glacic's own parts, each as a process of its own (processes.py)."""
