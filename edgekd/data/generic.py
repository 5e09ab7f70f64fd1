"""Generic sentences, for measuring and checking a bundle when the user's own texts are not at hand."""

from __future__ import annotations

from edgekd.data.split import Split

SENTENCES = (
    "The meeting has been moved to Thursday afternoon.",
    "Could you tell me how far it is to the nearest station?",
    "I never thought that the book would end like this.",
    "Please send the invoice again, the first one had the wrong date.",
    "What was the weather like when you left this morning?",
    "The soup needs a little more salt and another ten minutes.",
    "My brother plays the cello in a small orchestra.",
    "There is a crack in the left window of the kitchen.",
    "How much would it cost to ship two boxes to Canada?",
    "They walked along the river until it was almost dark.",
    "The screen stays black after the latest update.",
    "Remind me to call the dentist before noon tomorrow.",
    "This is by far the best service that I have had in years.",
    "A young fox crossed the road right in front of us.",
    "Is the museum open on public holidays?",
    "She explained the problem twice and nobody understood it.",
    "The train was late, crowded and far too warm.",
    "Turn the lights down and play something quiet.",
    "Our garden is full of tomatoes at the end of summer.",
    "I would like to change the address on my account.",
    "He fixed the old bicycle with parts from three others.",
    "Which of these two cameras takes better pictures at night?",
    "The contract ends in June unless we renew it in time.",
    "Nobody answered the door although the radio was on.",
    "You can reach the island by ferry twice a day.",
    "The actors are wonderful, but the story goes nowhere.",
    "Add milk, flour and two dozen eggs to the shopping list.",
    "It has rained for nine days without a break.",
    "Why does the engine make that noise when it is cold?",
    "The children built a house out of cardboard and tape.",
    "Our flight was cancelled and no one told us why.",
    "Translate this sentence into Italian, please.",
)


def generic_split() -> Split:
    """The sentences as a split of texts."""
    return Split("generic", list(SENTENCES))
