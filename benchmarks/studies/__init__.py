"""Studies: experiments of papers run again on real data; `python -m benchmarks.studies --help`."""
