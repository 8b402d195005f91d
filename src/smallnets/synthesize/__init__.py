"""Images made to train on: condensed data sets, and replay without a memory."""
