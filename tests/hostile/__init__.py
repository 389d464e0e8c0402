"""Records and schemas made to do harm, and the personal data that must not rest anywhere, run through a real worker."""
