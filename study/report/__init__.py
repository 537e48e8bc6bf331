"""From metrics files to tables, figures and a text."""
