"""The nouns every layer shares: snapshots, runs, knobs, problems, papers, seeds and devices."""
