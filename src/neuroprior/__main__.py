"""`python -m neuroprior`: the command line."""

from neuroprior.cli import main

if __name__ == "__main__":
    main()
