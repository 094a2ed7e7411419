"""What a feed offers, and what follows from it: pure functions, time is an argument."""
