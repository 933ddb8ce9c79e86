"""Sample datasets: real texts obtained by package name and hash when first asked for, and texts we plant ourselves."""
