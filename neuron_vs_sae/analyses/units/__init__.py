"""What units are: where they are active in a corpus, what they write and read, what the model makes of it."""
