"""`python -m yoloprune`."""

from yoloprune.cli import main

if __name__ == "__main__":
    main()
