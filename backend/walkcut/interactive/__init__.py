"""Interactive editing: typed commands, points and boxes as edits of the regions on the screen."""
