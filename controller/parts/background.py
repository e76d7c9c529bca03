"""What policies that know stages do with transfers that no first token waits for."""

from controller.flow import Level
from controller.policy import Verdict

BACKGROUND = Verdict(Level.SCAVENGER, "background: below all S3, however long that can wait")
