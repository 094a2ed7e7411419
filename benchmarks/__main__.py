"""`make bench`: all benchmarks, one after the other."""

from benchmarks import control_plane, overhead, sliding, swaps

overhead.main()
sliding.main()
swaps.main()
control_plane.main()
