"""`make bench`: all benchmarks, one after the other."""

from benchmarks import control_plane, overhead, sliding

overhead.main()
sliding.main()
control_plane.main()
