"""What can be wrong with a prepared data set; docs/CHECKING.md explains every kind of finding."""
