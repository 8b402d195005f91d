"""Networks outside of torch: exported, checked against the original, and timed."""
