"""Plant faults in a copy of the rules, one at a time, and see that a test catches each."""
