"""What travels to a board: Python 3.8 and NumPy, no softedge import."""
