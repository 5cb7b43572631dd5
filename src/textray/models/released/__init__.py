"""Networks as the authors' released codes compute them, so that published weights mean the same here."""
