"""Plain neural networks; none of them knows a method."""
