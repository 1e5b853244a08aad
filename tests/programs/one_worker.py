"""Has one worker do a block, and prints what it said."""

from absl import app

from maemem.blockwise.workers import open_workers
from maemem.logs import log_to_terminal


def main(argv):
    del argv
    log_to_terminal()
    with open_workers("local:1") as workers:
        print(list(workers(str, ["one block"])))


if __name__ == "__main__":
    app.run(main)
