"""y = A x: the operator interface, what carries it, and one folder for each physics.

Each folder has the same parts: `read` a measurement, `simulate` one, `scale` it to the prior's range, and the `scanner`
that builds its operator.
"""

from interslice.physics.evidence import SplitEvidenced
from interslice.physics.judge import Judged
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import Measured, operator_of

__all__ = ["Judged", "LinearOperator", "Measured", "SplitEvidenced", "operator_of"]
