"""The parts of the HTML report: its data, its words, its page, and the files it is made of."""
