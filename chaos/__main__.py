"""``python -m chaos``."""

from chaos.cli import app

if __name__ == "__main__":
    app(prog_name="chaos")
