"""How is it shown? Sheets of pictures, plots and tables."""
