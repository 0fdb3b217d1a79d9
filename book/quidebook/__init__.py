"""The code of the executable book: it is built here, and each page has the module that draws its tables and figures."""
