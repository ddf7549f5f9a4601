"""What people read: the page, the charts, the summary in the terminal."""
