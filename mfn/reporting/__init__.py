"""The report page, its charts, and the summary in the terminal."""
