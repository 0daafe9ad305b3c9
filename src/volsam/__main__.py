"""`python -m volsam` is the command `volsam`."""

from volsam.cli import main

if __name__ == "__main__":
    main()
