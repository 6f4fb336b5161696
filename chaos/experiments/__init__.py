"""What is run: scenarios, maintenance procedures, the durability matrix and seeded mutations."""
