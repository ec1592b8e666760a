"""Files on disk: pretrained weights with their cards, and the pictures a run leaves behind."""
