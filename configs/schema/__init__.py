"""How configuration keys are declared and checked, and the methods that set some of them."""
