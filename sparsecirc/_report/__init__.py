"""One self-contained HTML page from the results of other commands (the lead is writing this one)."""
