"""`make recovery-check`: recoveries to random moments beside live ingest, compared row by row with the log."""
