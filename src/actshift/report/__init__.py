"""From records to tables: frames, the paper's printed numbers, and layouts. Nothing here imports torch."""
