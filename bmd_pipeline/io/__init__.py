"""Files that stages leave behind: where they are, how they are written, what they say of themselves."""
