"""The cost of sparse recurrent networks beside every other engine that is installed: `python -m benchmarks --help`."""
