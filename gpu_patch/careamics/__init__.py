"""From CAREamics to this package: constructors, datasets and whole trainings.

Written for careamics 0.3.5. Here its classes are recognised by their names, so that nothing imports
it; `gpu_patch.careamics.lightning` has the data module and the `CAREamist` that feed its trainings.
"""

from gpu_patch.careamics.feed import Feed, from_careamics

__all__ = ["Feed", "from_careamics"]
