"""Tables and figures of the papers again: trained, measured, and set beside what was printed."""
