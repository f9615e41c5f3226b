"""The doctor: what data, tokenizer and model hold that would silently ruin a run, found before it starts.

`gather` reads a sample of the data and turns it into tokens as the stage itself does; each function of `CHECKS`
(checks.py) looks at it and yields what it found. The next check is one function and one line of that table.
"""

from utils.doctor.checks import CHECKS, Finding, examine
from utils.doctor.gathering import DoctorArguments, gather
from utils.doctor.subject import StageData, Subject
from utils.doctor.tables import show

__all__ = ["CHECKS", "DoctorArguments", "Finding", "StageData", "Subject", "examine", "gather", "show"]
