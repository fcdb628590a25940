"""Rules inside the trainers of other packages; import its ``lightning`` or ``transformers``."""
