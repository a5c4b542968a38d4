"""What a recipe is made of: files that derive from one another, sections, and what is said about a mistake."""
