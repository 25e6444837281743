"""What a result says: metrics, intervals, calibration, comparison; pure but for score files."""
