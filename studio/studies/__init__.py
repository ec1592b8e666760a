"""Studies: every knob of one experiment in a frozen record that can run and be looked at."""
