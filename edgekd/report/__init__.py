"""One result of a run, and its renderings: HTML, Markdown, JSON and the terminal."""
