"""NIR files: the writer, and the float64 judge that proves them.

(The package ``nir`` itself is imported only where a file is made or read.)
"""

from sparsecirc.export.nir._euler import NIR_DT, EulerRun, euler
from sparsecirc.export.nir._file import NirCheck, check_nir
from sparsecirc.export.nir._profile import Profile
from sparsecirc.export.nir._write import export_nir

__all__ = ["NIR_DT", "EulerRun", "NirCheck", "Profile", "check_nir", "euler", "export_nir"]
