"""From a bundle and a test set to numbers, and from run folders to a page that explains them."""
