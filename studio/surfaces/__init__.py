"""Where people meet a study: the command line, the page and the notebook panel."""
