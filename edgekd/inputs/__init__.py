"""What the user named, read: profile, request, teacher, data, transfer set, demo."""
