"""A phone reached by adb."""
