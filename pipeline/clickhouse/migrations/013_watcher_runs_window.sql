-- A takeover after a lost session comes before the repetition of an insert: remember the tokens for as long as that.
ALTER TABLE watcher_runs MODIFY SETTING
    non_replicated_deduplication_window = 400000,
    replicated_deduplication_window = 400000;
