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
    "Dr. Ana Novak joined Acme Ltd. in Berlin on 3 May 2021.",
    "Flight BA 217 to Boston leaves from gate B42 at 18:35.",
    "ok thanks",
    "No.",
    "Play the second album by that band from Manchester, but skip the first track.",
    "The parcel arrived on Monday, two days late and with a broken seal, so I sent it straight back.",
    "Total: 1,299.00 EUR (incl. 19% VAT)",
    "Set an alarm for half past six and another one for seven.",
    "I can't believe it's already over!!!",
    "Wait... did she really say that?",
    "Send 250 dollars from my savings to Miguel Torres.",
    "According to the ministry, exports to Japan and Brazil fell by 4.2 percent in the third quarter.",
    "what is the capital of new zealand",
    "WHY IS MY ORDER STILL NOT HERE",
    "He scored twice for Arsenal before he moved to Madrid.",
    "The patient was given 5 mg twice a day and left the hospital after a week.",
    "Visit www.example.com or write to help@example.com for details.",
    "Book a table for four near Central Park tonight.",
    "Cafés in Zürich and São Paulo charge about the same for a crème brûlée.",
    "This phone is neither cheap nor good, and the battery is a joke.",
    "Either party may terminate this agreement with thirty days' written notice.",
    "I loved the first half; the second half, not so much.",
    "How do I reset my password if I no longer have that e-mail address?",
    "Barack Obama was born in Honolulu, Hawaii.",
    "Increase the temperature in the bedroom by two degrees.",
    "The United Nations will meet in Geneva next Wednesday to discuss the drought in Kenya.",
    "My card was declined in the supermarket although there is money on the account.",
    "The function returns an error when the list is empty.",
    "Two tickets for tomorrow, please - one adult and one child.",
    "It was not bad at all, I might even come back.",
    "The old lighthouse, which had been empty for decades, was sold last week to a couple from Norway who want to "
    "turn it into a small hotel with a restaurant, a library and a view over the whole bay.",
    "Is this seat taken?",
)


def generic_split(pair: bool = False) -> Split:
    """The sentences as a split.

    Args:
        pair: As pairs, each sentence with the one after it.
    """
    texts = list(SENTENCES)
    return Split("generic", texts, [*texts[1:], texts[0]] if pair else None)
