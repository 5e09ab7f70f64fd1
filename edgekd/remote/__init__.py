"""Another device: the kit that measures it, planning from what it said, and the kit that proves a bundle there."""
