"""Low-rank updates of kernels: their forms, their arithmetic, and models that train them."""
