"""What is started, spoken to and hurt beside the store: the system under test."""
