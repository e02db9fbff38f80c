"""Runs the command: `python -m nearfield`."""

import os
import subprocess
import sys

from nearfield import find_program


def main():
    try:
        program = find_program()
    except FileNotFoundError as error:
        sys.exit("nearfield: {}".format(error))
    arguments = [program, *sys.argv[1:]]
    if os.name == "posix":
        # Replaces this process, so that signals reach the command.
        os.execv(program, arguments)
    sys.exit(subprocess.call(arguments))


if __name__ == "__main__":
    main()
