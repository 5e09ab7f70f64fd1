"""One record a fact: written once where it is computed, and read by bundle, report, card, JSON and the terminal."""
