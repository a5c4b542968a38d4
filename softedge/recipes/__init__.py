"""What a recipe is made of: files that derive from one another, sections, and messages about mistakes."""
