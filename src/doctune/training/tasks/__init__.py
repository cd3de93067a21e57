"""What each kind of data brings to the story of a run."""
