"""What is optimised: small objects with a start and a loss; none of them knows a method or a picture."""
