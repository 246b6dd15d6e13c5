"""Cells that run without `genbook`: its imports replaced by the code itself.

source       Python source whose names are resolved
package      the definitions of genbook, and what each of them needs
standalone   what some cells need, where each definition goes, and under which name
standins     shorter versions of what reaches for files, locks and compiled libraries
"""

from .source import CannotCarry
from .standalone import Shown, Standalone, standalone

__all__ = ["CannotCarry", "Shown", "Standalone", "standalone"]
