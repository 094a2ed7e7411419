"""`make bench`: all benchmarks, one after the other."""

from benchmarks import control_plane, overhead

overhead.main()
control_plane.main()
