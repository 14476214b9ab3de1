"""What a person at the site reads before a run may compute here."""
