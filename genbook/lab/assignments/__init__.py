"""The tasks of the lab as assignments: `build` makes them from the lessons, `grade` grades them."""


class AssignmentError(RuntimeError):
    """Assignments that cannot be built or graded."""
