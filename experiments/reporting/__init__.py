"""The parts of `task=report`: runs collected, tables, pictures, one page."""
