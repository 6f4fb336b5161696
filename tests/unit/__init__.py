"""Pure modules, one at a time, and the documents that are made from them."""
