"""stub"""

from chaos.judge import Judgement
from chaos.run import Run


def write_report(run: Run, judgement: Judgement) -> None: ...
