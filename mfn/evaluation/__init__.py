"""From predictions to the tables and the page that people read."""
