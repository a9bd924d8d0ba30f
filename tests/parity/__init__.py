"""Which solver answers which golden family; one module per solver family."""
